"""The nursery: a process that imports the application once and forks executors from it.

A supervisor that is a program of its own forks it before it imports the application itself, so that both share the
pages of all that kq needs; else, and in the place of one that died, it is `python -m kq.worker.nursery SOCKET PARENT`.
Either way a Welcome on the socket says what to import, and where broker and state are.

Its memory is shared by its children as long as nobody writes to it, and a fork takes milliseconds where an import takes
seconds. It runs no job, so it stays as clean as it was after the import.

What jobs started and left becomes the nursery's when their executor ends, whatever session or group it went to:
it is killed. So is everything when the supervisor ends.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import math
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial

import msgspec

from kq.app import App
from kq.broker import Broker
from kq.errors import KqError
from kq.handles.trouble import ALERT
from kq.loading import load_app, version_of
from kq.state import preload
from kq.url import parse
from kq.values.given import withhold_secrets
from kq.values.message import Stage
from kq.values.policy import RetryPolicy
from kq.worker.cradle import Forked, search_path
from kq.worker.executor import DEAF_TO, be_deaf, run_executor
from kq.worker.kin import (
    adopt_orphans,
    be_private,
    call_itself,
    close_all,
    close_inherited,
    die_with,
    die_with_tie,
    live_apart,
    living_children,
    reap_children,
)
from kq.worker.lapse import Lapse, Sight
from kq.worker.relay import Relay, RelayedMouth, RelayedPublisher, RelayedStore
from kq.worker.wire import Claims, Entry, Exited, Frames, Hello, Page, Spawn, Spawned, Unborn, Welcome, frame

#: Seconds between two looks at the lapse while it is past, or nothing is held.
LOOK = 0.25
#: Seconds in which everything ends with the supervisor, and between two looks at what still lives.
END_WITHIN = 5.0
END_PAUSE = 0.005
#: What wakes the nursery: an end of a child, that of its supervisor, and who was told to go on.
TOLD_BY = (signal.SIGCHLD, signal.SIGQUIT, signal.SIGCONT)
#: Bytes in which the number of a process is told, or, negative, the system's number of why there is none.
PID_SIZE = 8

_decode_welcome = msgspec.msgpack.Decoder(Welcome).decode
_decode_spawn = msgspec.msgpack.Decoder(Spawn).decode


def main() -> None:
    descriptor, parent = map(int, sys.argv[1:3])
    _live(socket.socket(fileno=descriptor), parent)


def fork_nursery(url: str, state: str | None) -> Forked | Callable[[], None] | None:
    """A nursery that shares the pages of this process; in the nursery itself, what it is to do from now on.

    For a program that has one thread, and neither a connection nor an application yet. None where the system has no
    room for another process: one that is started later is tried again. url, state: where the application will connect
    to, as far as is known.
    """
    with contextlib.suppress(ValueError):  # the application may know better
        _import_drivers(Broker(parse(url, state)))
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    gc.freeze()  # who looks for garbage writes to all that may be some, and the pages would not be shared any more
    # A signal to the group that comes before the child has left it waits until the child does nothing on it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, DEAF_TO)
    try:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            be_deaf()
    except OSError:
        ours.close()
        theirs.close()
        return None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if pid == 0:
        ours.close()
        close_inherited()
        return partial(_live, theirs, parent)
    theirs.close()
    return Forked(pid, ours)


def _live(sock: socket.socket, parent: int) -> None:
    """Be the nursery of the process parent, which speaks on sock."""
    die_with(parent)
    call_itself("kq-nursery")
    be_deaf()
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the supervisor ended while we spoke
        _speak(sock, parent)


def _speak(sock: socket.socket, parent: int) -> None:
    """Do what the supervisor says on sock, until it ends."""
    said = _first(sock)
    if said is None:
        return
    welcome, lapse, tie = said
    if not welcome.debuggable:
        be_private()
    try:
        app = load_app(welcome.where)
        app.configure(url=welcome.url, state=welcome.state)
        _import_drivers(app.broker)
        add_alerts(app)
    except KqError as error:
        sock.sendall(frame(Hello(error=str(error))))
        return
    except Exception:
        sock.sendall(frame(Hello(error=f"{welcome.where} does not import:\n{traceback.format_exc(limit=-3)}")))
        return
    be_deaf()  # whatever the application did about signals
    # The application has read what it wants of the environment. Jobs, and all that they start, find no password there.
    withhold_secrets()
    # What jobs start finds what they find.
    os.environ["PYTHONPATH"] = search_path()
    gc.freeze()
    sock.sendall(frame(Hello(entries=catalogue(app), code=version_of(app), observed=bool(app.observers))))
    _Nursery(app, sock, lapse, tie, parent).serve()


def _import_drivers(broker: Broker) -> None:
    """Import what takes megabytes and a tenth of a second: else each executor does, at its first submit or effect."""
    broker.traits  # noqa: B018
    preload(broker.address.state)


def _first(sock: socket.socket) -> tuple[Welcome, Lapse, int] | None:
    """What the supervisor says first, until when executors may run, and its tie; None when it is gone."""
    frames, descriptors = Frames(), list[int]()
    while True:
        data = _receive(sock, descriptors)
        for each in frames.feed(data):
            return _decode_welcome(each), Lapse(descriptors[0]), descriptors[1]
        if not data:
            return None


def _receive(sock: socket.socket, descriptors: list[int]) -> bytes:
    """What the supervisor says next; b"" when it is gone. Puts what came along into descriptors."""
    data, received, _, _ = socket.recv_fds(sock, 4096, 16)
    for descriptor in received:
        os.set_inheritable(descriptor, False)
    descriptors += received
    return data


def add_alerts(app: App) -> None:
    """Let it send alerts, where somebody wants any."""
    if app.alerts.wanted and ALERT not in app.jobs:
        # Here and not above: who wants none does not pay for all that mail needs.
        from kq.alert import register_alerts

        register_alerts(app)


def catalogue(app: App) -> list[Entry]:
    """The app's job types as data."""
    return [
        Entry(
            name=job_type.name,
            queue=job_type.settings.queue or app.defaults.queue or "",
            timeout=job_type.timeout,
            retry_policy=_policy_data(job_type.rules.retry_policy),
            failures=dict(job_type.rules.failures),
            on_timeout=job_type.rules.on_timeout,
            on_lost=job_type.rules.on_lost,
            max_lost=job_type.rules.max_lost,
            max_infra=job_type.rules.max_infra,
            keep=app.kept(job_type.name),
            fallback=tuple(_stage(app, name) for name in job_type.fallback),
            singleton=job_type.settings.queue in app.singletons,
            parameters=job_type.signature.positional,
            most_retries=app.most_retries,
        )
        for job_type in app.jobs.values()
    ]


def _stage(app: App, name: str) -> Stage:
    """A job type that runs instead of another; of one that the app does not know, nothing but its name."""
    known = app.jobs.get(name)
    return Stage(name, None if known is None else known.settings.queue)


def _policy_data(policy: RetryPolicy | None) -> dict[str, object] | None:
    return None if policy is None else policy.to_data()


class _Nursery:
    """Forks on request, reaps, and reports both. Ends all executors when their supervisor lets the lease lapse."""

    def __init__(self, app: App, sock: socket.socket, lapse: Lapse, tie: int, parent: int) -> None:
        self._app = app
        self._sock = sock
        self._lapse = lapse
        self._tie = tie
        self._parent = parent
        self._executors: dict[int, int] = {}  # by the child that it is, or that is its parent
        self._own: set[int] = set()  # what the application started when it was imported
        self._sweeping = False  # whether orphans of an executor that has ended may live
        self._frames = Frames()
        self._descriptors: list[int] = []

    def serve(self) -> None:
        """Until the supervisor is gone."""
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        reader.setblocking(False)
        for number in TOLD_BY:
            signal.signal(number, lambda number, at: None)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._wakeup = (reader, writer)
        self._own = living_children()
        adopt_orphans()
        die_with(self._parent, signal.SIGQUIT)
        try:
            self._obey(reader)
        finally:
            # An executor that ends after us must not make Python write to a descriptor that is closed by then.
            signal.set_wakeup_fd(-1)
            self._end()

    def _obey(self, reader: socket.socket) -> None:
        """Until the supervisor is gone; raises BrokenPipeError or ConnectionResetError when that is while we speak."""
        told = b""
        while signal.SIGQUIT not in told:
            readable, _, _ = select.select([self._sock, reader], [], [], self._until_lapse())
            if reader in readable:
                told = reader.recv(4096)
                if signal.SIGCONT in told:
                    self._rouse()
                self._reap()
            if self._sock in readable and not self._read():
                break

    def _end(self) -> None:
        """Leave nothing behind."""
        self._kill()  # what they still run may be run again; to find all others first takes longer than some jobs do
        self._executors.clear()
        until = time.monotonic() + END_WITHIN
        while self._sweep() and time.monotonic() < until:
            reap_children()
            time.sleep(END_PAUSE)

    def _sweep(self) -> bool:
        """Kill the orphans that are left; False when there are none.

        They descend from an executor that has ended. Where executors are shared, one that another job has let go
        on purpose may be among them.
        """
        try:
            orphans = living_children() - self._executors.keys() - self._own
        except OSError:
            return True  # the system has no room for a look: the next one finds them
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        return bool(orphans)

    def _until_lapse(self) -> float:
        """End the executors whose time is over; returns seconds until the next look."""
        now = time.monotonic()
        left = self._lapse.moment - now
        if left <= 0:
            self._kill()
        return left if 0 < left < math.inf else LOOK

    def _rouse(self) -> None:
        """Let those go on that stand between us and an executor: one that is stopped does not tell of its end."""
        for child, pid in self._executors.items():
            if child != pid:
                os.kill(child, signal.SIGCONT)

    def _kill(self) -> None:
        for pid in self._executors.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def _read(self) -> bool:
        data = _receive(self._sock, self._descriptors)
        for each in self._frames.feed(data):
            self._spawn(_decode_spawn(each))
        return bool(data)

    def _spawn(self, spawn: Spawn) -> None:
        descriptors, self._descriptors = self._descriptors, []  # what came with one message, and with no other
        try:
            if len(descriptors) < (4 if spawn.relayed else 3):
                raise OSError(errno.EMFILE, "no room for what came with it")
            child, pid = self._bear_apart(spawn, descriptors) if spawn.apart else (self._bear(spawn, descriptors),) * 2
        except OSError as error:
            told: Spawned | Unborn = Unborn(spawn.number, error.errno or 0)
        else:
            self._executors[child] = pid
            told = Spawned(spawn.number, pid)
        for descriptor in descriptors:
            os.close(descriptor)
        self._sock.sendall(frame(told))

    def _bear(self, spawn: Spawn, descriptors: list[int]) -> int:
        """An executor: its number. Raises OSError where the system has no room for it."""
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            live_apart(lambda: self._become(spawn, descriptors, parent))
        return pid

    def _bear_apart(self, spawn: Spawn, descriptors: list[int]) -> tuple[int, int]:
        """A child that is the parent of an executor, and the executor: who kills his parent kills none but himself.

        Raises OSError where the system has no room for both.
        """
        parent = os.getpid()
        reader, writer = os.pipe()
        try:
            child = os.fork()
            if child == 0:
                live_apart(lambda: self._stand_between(spawn, descriptors, parent, writer))
        finally:
            os.close(writer)
            with open(reader, "rb") as told:
                pid = int.from_bytes(told.read(PID_SIZE), sys.byteorder, signed=True)
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return child, pid or child  # it may have died before it had one

    def _stand_between(self, spawn: Spawn, descriptors: list[int], parent: int, writer: int) -> None:
        """The child that has an executor, and ends like it."""
        self._leave(parent)
        call_itself("kq-shield")
        self._descriptors.append(writer)
        try:
            pid = self._bear(spawn, descriptors)
        except OSError as error:
            pid = -(error.errno or errno.EAGAIN)
        os.write(writer, pid.to_bytes(PID_SIZE, sys.byteorder, signed=True))
        if pid < 0:
            return
        close_all()  # who holds a socket of others hides that they have ended
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            with contextlib.suppress(OSError):  # nobody can be deaf to SIGKILL
                signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
            os.kill(os.getpid(), os.WTERMSIG(status))
        os._exit(os.waitstatus_to_exitcode(status))

    def _leave(self, parent: int) -> None:
        """Be no nursery any more, and end with it."""
        # A session of its own: one signal ends the executor and all that its jobs started.
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in TOLD_BY:
            signal.signal(number, signal.SIG_DFL)
        die_with(parent)

    def _become(self, spawn: Spawn, descriptors: list[int], parent: int) -> None:
        """The child."""
        self._leave(parent)
        die_with_tie(self._tie)
        call_itself("kq-executor")
        self._sock.close()
        os.close(self._tie)
        sight = Sight(self._lapse)
        self._lapse.close()
        for each in self._wakeup:
            each.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        sock, page, claims = descriptors[:3]
        if spawn.relayed:
            relay = Relay(socket.socket(fileno=descriptors[3]))
            self._app.connect(RelayedPublisher(relay), RelayedStore(relay), partial(RelayedMouth, relay))
            self._app.broker.elsewhere = True
        mine = Claims(spawn.slots, (claims, -1))
        page_of = Page(spawn.slots, page)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # nobody is left to report to
            run_executor(self._app, socket.socket(fileno=sock), page_of, mine, sight, spawn.pool)
            self._app.close()

    def _reap(self) -> None:
        for pid, status in reap_children():
            if pid in self._executors:
                self._sweeping = True
                self._sock.sendall(frame(Exited(self._executors.pop(pid), status)))
        if self._sweeping:  # until nobody is left: one that was killed may have left others
            self._sweeping = self._sweep()


if __name__ == "__main__":
    main()
