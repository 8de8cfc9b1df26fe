"""An application for tests of workers: jobs that do what no job should."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime

from kq.app import App
from kq.conformance.contract.jobs import QUEUE, hold_async, noted
from kq.errors import Retry
from kq.values.message import Envelope
from kq.values.policy import Fixed
from kq.worker.wire import Ended, frame
from tests.worker.jobs import Odd, kept

WHERE = f"{__name__}:app"


class Unruly(Odd):
    """The other job types, and these."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self.orphan = app.job(name="orphan")(orphan)
        self.fork = app.job(name="fork")(fork)
        self.close_all = app.job(name="close_all")(close_all)
        self.babble = app.job(name="babble")(babble)
        self.forge = app.job(name="forge")(forge)
        self.curse = app.job(name="curse")(curse)
        self.stop_loop = app.job(name="stop_loop")(stop_loop)
        self.exit_within = app.job(name="exit_within")(exit_within)
        self.die_untold = app.job(name="die_untold")(die_untold)
        self.postpone = app.job(name="postpone", retry_policy=Fixed(delay=0.1, retries=1))(postpone)
        self.large = app.job(name="large")(large)
        self.end_children = app.job(name="end_children")(end_children)
        self.last_words = app.job(name="last_words")(last_words)
        self.swell = app.job(name="swell", max_lost=1)(swell)
        self.escape = app.job(name="escape", on_timeout="bury", max_lost=1)(escape)
        self.let_go = app.job(name="let_go")(let_go)
        self.multiply = app.job(name="multiply", max_lost=1)(multiply)
        self.kill_parent = app.job(name="kill_parent")(kill_parent)
        self.stop_parent = app.job(name="stop_parent")(stop_parent)
        self.upset = app.job(name="upset")(upset)
        self.condition = app.job(name="condition")(condition)
        self.cancel_all = app.job(name="cancel_all")(cancel_all)
        self.hold_within = app.job(name="hold_within")(hold_within)
        self.hold_within_once = app.job(name="hold_within_once", on_lost="bury")(hold_within)
        self.drop_handlers = app.job(name="drop_handlers", on_timeout="bury")(drop_handlers)


def orphan() -> None:
    """Die, and leave a child that has inherited every descriptor."""
    with noted(""):
        if os.fork() == 0:
            time.sleep(60)
        os._exit(1)


def fork() -> int:
    """Return in two processes; the number of the child, which both get to know."""
    with noted(""):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            return int(os.read(reader, 20))
        os.write(writer, str(child).encode())
        return child


def close_all() -> None:
    with noted(""):
        os.closerange(3, 60)


def babble() -> None:
    """Write to every descriptor there is."""
    with noted(""):
        for descriptor in range(3, 60):
            try:
                os.write(descriptor, b"\x05\0\0\0hello")
            except OSError:
                continue


#: What a job could tell its supervisor in its executor's place, of the first job that this was given.
FORGED = {
    "a cost that is no number": Ended(1, "d", b"1", cpu=float("nan")),
    "a time that is no number": Ended(1, "d", b"1", took=float("nan")),
    "a time without end": Ended(1, "d", b"1", took=float("-inf")),
    "endless memory": Ended(1, "d", b"1", rss=2**63),
    "endless effects": Ended(1, "d", b"1", effects={"done": 2**64 - 1}),
    "strange effects": Ended(1, "d", b"1", effects={"doing": 1}),
    "a result that is no JSON": Ended(1, "d", b"}{"),
    "a delay that is no number": Ended(1, "a", b"", ("X",), "again", delay=float("nan")),
    "a submit for a time that is none": Ended(1, "d", b"1", staged=(Envelope("x", "y", b"", delay=float("nan")),)),
    "a submit of nothing": Ended(1, "d", b"1", staged=(Envelope("", "", b"", {"a": {"b": 2**64 - 1}}, -(10**6)),)),
    "an end of its own": Ended(1, "z", b"1", ("X",), "\0" * 100),
    "another job's end": Ended(2**63, "d", b"1"),
    **{
        f"a submit that no broker takes, {name}": Ended(1, "d", b"1", staged=(Envelope(id, "y", b"{}", headers),))
        for name, id, headers in (
            ("a number of 64 bits", "x", {"a": {"b": [2**64 - 1]}}),
            ("no number", "x", {"a": float("nan")}),
            ("a long name", "x", {"k" * 300: 1}),
            ("a long id", "x" * 300, {}),
            ("a moment", "x", {"a": datetime.now(UTC)}),
            ("bytes", "x", {"a": b"\xff"}),
        )
    },
}


def forge(what: str) -> None:
    """Write that to every descriptor there is."""
    with noted(""):
        for descriptor in range(3, 60):
            try:
                os.write(descriptor, frame(FORGED[what]))
            except OSError:
                continue


class _Nameless(type):
    @property
    def __module__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("it has no module")


class Nameless(Exception, metaclass=_Nameless):
    """Its class can't even be named."""


class Speechless(Exception):
    """What str() of it raises is no Exception."""

    def __str__(self) -> str:
        raise SystemExit(3)


class Unprintable(Exception):
    """Its name is not Unicode."""


Unprintable.__qualname__ = "\ud800"


def curse(kind: str) -> None:
    """Raise what can't be told."""
    with noted(kind):
        raise {
            "nameless": Nameless,
            "speechless": Speechless,
            "unprintable": Unprintable,
            "stop": StopIteration,
            "exit": SystemExit,
            "interrupt": KeyboardInterrupt,
            "cancelled": asyncio.CancelledError,
        }[kind]


async def exit_within(kind: str) -> None:
    """Wait for a task of its own that raises what ends a program."""

    async def end() -> None:
        raise {"exit": SystemExit(5), "interrupt": KeyboardInterrupt()}[kind]

    with noted(kind):
        await asyncio.create_task(end())


async def stop_loop() -> str:
    """Stop the event loop that it runs in."""
    with noted(""):
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.01)
        return "went on"


async def die_untold() -> None:
    """End in good order in a process that dies before it can say so."""
    with noted(""):
        asyncio.get_running_loop().call_soon(os._exit, 7)


def postpone(delay: str) -> None:
    """Ask for a second run after an impossible time."""
    with noted(""):
        error = Retry("later")
        error.delay = float(delay)
        raise error


def large(size: int) -> str:
    with noted(""):
        return "x" * size


def end_children() -> list[int | None]:
    """Start two children, of both kinds, and ask them to end: their exit codes."""
    with noted(""):
        program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        process.start()
        program.terminate()
        process.terminate()
        process.join(5)
        threading.Timer(5, program.kill).start()
        return [program.wait(), process.exitcode]


def last_words(lines: int) -> None:
    """Log some lines, and die as by kill -9 from outside."""
    with noted(""):
        for number in range(1, lines + 1):
            logging.getLogger("shop").warning("page %s of %s", number, lines)
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)


def swell() -> None:
    """Take more and more memory, for ever."""
    with noted(""):
        while True:
            kept.append(os.urandom(1024) * 10 * 1024)
            time.sleep(0.01)


def escape(then: str) -> None:
    """Start processes that are deaf and leave their group, session or parent; say which; then die, hang or linger."""
    deaf = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; time.sleep(600)"
    double = f"import subprocess as s, sys; print(s.Popen([sys.executable, '-c', {deaf!r}], stdout=-3, stderr=-3).pid)"
    plain = subprocess.Popen([sys.executable, "-c", deaf])
    session = subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)
    daemon = subprocess.run([sys.executable, "-c", double], start_new_session=True, capture_output=True, text=True)
    with noted(f"{plain.pid} {session.pid} {daemon.stdout.strip()}"):
        if then == "die":
            os._exit(1)
        while then == "hang":
            try:
                time.sleep(600)
            except Exception:
                continue
        time.sleep(600)


def let_go() -> None:
    """Start a process, and leave it to whoever may care."""
    with noted(""):
        subprocess.run(["sh", "-c", "sleep 0.01 &"], stdout=subprocess.DEVNULL, check=True)


def multiply() -> None:
    """Fork for ever, each child into a session of its own, and die."""
    with noted(""):
        for _ in range(30):
            if os.fork() == 0:
                os.setsid()
                for _ in range(3):
                    if os.fork() == 0:
                        os.setsid()
                time.sleep(600)
        os._exit(1)


def kill_parent() -> None:
    """Kill the process that this one was forked from, which takes this one along."""
    with noted(""):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)  # it dies here


def stop_parent() -> None:
    """Freeze the process that this one was forked from, and die."""
    with noted(""):
        os.kill(os.getppid(), signal.SIGSTOP)
        os._exit(1)


def upset(what: str) -> None:
    """Change something of this process, and do not put it back."""
    with noted(what):
        match what:
            case "folder":
                folder = tempfile.mkdtemp()
                os.chdir(folder)
                os.rmdir(folder)
            case "mask":
                os.umask(0)
            case "alarm":
                signal.alarm(60)
            case "limit":
                resource.setrlimit(resource.RLIMIT_CPU, (600, resource.getrlimit(resource.RLIMIT_CPU)[1]))
            case "signal":
                signal.signal(signal.SIGCONT, signal.SIG_IGN)
        time.sleep(0.002)  # after jobs that took less than a millisecond nothing is put back


def condition() -> list[object]:
    """What a job finds."""
    with noted(""):
        os.umask(mask := os.umask(0))
        alarm, cont = signal.getitimer(signal.ITIMER_REAL)[0], signal.getsignal(signal.SIGCONT)
        return [os.getcwd(), mask, alarm, resource.getrlimit(resource.RLIMIT_CPU), callable(cont)]


async def cancel_all() -> None:
    """Cancel all tasks of the event loop."""
    with noted(""):
        for task in asyncio.all_tasks():
            task.cancel()
        await asyncio.sleep(600)


async def hold_within(path: str) -> int:
    """Await a task of its own, which holds."""
    return await asyncio.create_task(hold_async(path))


def drop_handlers(seconds: float = 60) -> None:
    """Undo what the executor said about signals, and hang for so long."""
    with noted(""):
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        time.sleep(seconds)


app = App("unruly", queue=os.environ.get(QUEUE, "unruly"))
jobs = Unruly(app)
