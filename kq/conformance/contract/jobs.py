"""The application that the contract's workers run: jobs that do what a test asks and keep a diary.

Imported by workers as `kq.conformance.contract.jobs:app`; where its broker is comes from the environment.
"""

from __future__ import annotations

import asyncio
import collections
import ctypes
import fcntl
import itertools
import logging
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil

from kq.app import App
from kq.conformance.contract import diary
from kq.effects.context import current_job
from kq.errors import BadJob, BadStorage, Bury, NotDone, Retry
from kq.jobtype import JobType
from kq.values.policy import Delays, Exponential, Fixed, Never, Polynomial, RetryPolicy, by_error

WHERE = f"{__name__}:app"
#: The environment variables that name the queue of all these jobs, and their app.
QUEUE, NAME = "KQ_CONTRACT_QUEUE", "KQ_CONTRACT_APP"

#: What jobs of the singleton queue write into the diary.
SOLE = "sole"
#: How often a job that waits for a file looks for it, in seconds.
LOOK = 0.005


@contextmanager
def noted(word: str) -> Iterator[int]:
    """Write the start and the good end of this job into the diary; gives the attempt's number."""
    job = current_job()
    assert job is not None
    diary.write(job.id, "start", word, job.attempt)
    yield job.attempt
    diary.write(job.id, "end", word, job.attempt)


class Jobs:
    """The job types, registered with an app."""

    def __init__(self, app: App) -> None:
        self._plain(app)
        self._begetting(app)
        self._long(app)
        self._alone(app)
        self._effects(app)
        self._instead(app)
        self._performing(app)
        self._speaking(app)

    def _plain(self, app: App) -> None:
        """Jobs that end at once."""
        self.note = app.job(name="note")(note)
        self.brief = app.job(name="brief", keep=1)(note)
        self.note_async = app.job(name="note_async")(note_async)
        self.unspeakable = app.job(name="unspeakable")(unspeakable)
        self.add = app.job(name="add")(add)
        self.login = app.job(name="login")(login)

    def _begetting(self, app: App) -> None:
        """Jobs that submit others."""
        self.breed = app.job(name="breed")(breed)
        begets = app.job(name="beget", on_timeout="bury", retry_policy=Fixed(delay=0, retries=9), max_lost=1000)
        self.beget = begets(beget)
        self.beget_unique = app.job(name="beget_unique")(beget_unique)
        self.beget_async = app.job(name="beget_async")(beget_async)

    def _long(self, app: App) -> None:
        """Jobs that take their time, and some that do not end as they should."""
        self.work = app.job(name="work")(work)
        self.ticket = app.job(name="ticket", max_lost=1000)(ticket)
        self.beat = app.job(name="beat", max_lost=1000)(beat)
        self.nap = app.job(name="nap")(nap)
        self.nap_async = app.job(name="nap_async")(nap_async)
        self.pulse = app.job(name="pulse")(pulse)
        self.hold = app.job(name="hold")(hold)
        self.hold_async = app.job(name="hold_async")(hold_async)
        self.hold_once = app.job(name="hold_once", on_lost="bury")(hold)
        self.freeze = app.job(name="freeze")(freeze)
        self.stubborn = app.job(name="stubborn", on_timeout="bury")(stubborn)
        self.parent = app.job(name="parent", on_timeout="bury")(parent)
        self.kill_worker = app.job(name="kill_worker")(kill_worker)
        self.take_longer = app.job(name="take_longer", timeout=1.0, on_timeout="bury")(take_longer)

    def _alone(self, app: App) -> None:
        """Jobs of the singleton queue."""
        sole, again = sole_queue(app.defaults.queue or ""), Fixed(delay=0, retries=9)
        self.sole = app.job(name="sole", queue=sole, singleton=True, retry_policy=again)(alone)
        self.sole_async = app.job(name="sole_async", queue=sole, singleton=True)(alone_async)

    def _effects(self, app: App) -> None:
        """Jobs that do what must happen once."""
        deed_again = Fixed(delay=0.1, retries=3)
        self.deed = app.effect(name="deed", key=about, retry_policy=deed_again)(deed)
        self.deed_final = app.effect(name="deed_final", key=about, timeout=3, on_timeout="bury")(deed)
        self.deed_repeat = app.effect(name="deed_repeat", key=about, on_doubt="repeat")(deed)
        self.deed_skip = app.effect(name="deed_skip", key=about, on_doubt="skip")(deed)
        self.deed_checked = app.effect(name="deed_checked", key=about, check=happened)(deed)

    def _instead(self, app: App) -> None:
        """Jobs that give up, and those that run instead of them."""
        self.stage = app.job(name="stage")(stage)
        self.second = app.job(name="second", timeout=1)(stage)
        self.far = app.job(name="far", queue=f"{app.defaults.queue}-far")(stage)
        self.narrow = app.job(name="narrow")(narrow)
        self.best = app.job(name="best", timeout=1, max_lost=2, fallback=[self.second, "stage"])(stage)
        self.best_far = app.job(name="best_far", fallback=[self.far, "nowhere"])(stage)
        self.paper = app.job(name="paper")(paper)
        self.post = app.effect(name="post", key=about, timeout=1, retry_policy=Never(), fallback=["paper"])(deed)
        self.post_or_paper = app.effect(
            name="post_or_paper", key=about, timeout=1, on_doubt="fallback", fallback=["paper"]
        )(deed)
        self.post_checked = app.effect(
            name="post_checked", key=about, timeout=1, check=happened, fallback=["paper"], max_lost=2
        )(deed)

    def _performing(self, app: App) -> None:
        """Jobs that do what they are told at each attempt, under one policy each."""

        def performing(name: str, policy: RetryPolicy | None = None) -> JobType[[list[str]], int]:
            return app.job(name=name, retry_policy=policy)(perform)

        self.perform = performing("perform", Fixed(delay=0, retries=9))
        self.perform_fixed = performing("perform_fixed", Fixed(delay=0.2, retries=2))
        self.perform_list = performing("perform_list", Delays(delays=(0.3, 0.1)))
        self.perform_growing = performing("perform_growing", Exponential(first=0.1, factor=3, retries=2, jitter=False))
        self.perform_patient = performing("perform_patient", Polynomial())
        self.perform_by_error = performing("perform_by_error", by_error({OSError: Fixed(delay=0.1, retries=1)}))
        self.perform_plain = performing("perform_plain")

    def _speaking(self, app: App) -> None:
        """Jobs that emit."""
        self.say = app.job(name="say", retry_policy=Fixed(delay=0, retries=2))(say)
        self.say_async = app.job(name="say_async")(say_async)
        self.whisper = app.job(name="whisper", keep=0)(say)


def sole_queue(queue: str) -> str:
    """The singleton queue beside the queue of all other jobs."""
    return f"{queue}-sole"


def note(word: str = "") -> str:
    with noted(word):
        return word


async def note_async(word: str = "") -> str:
    with noted(word):
        return word


def add(left: int, right: int) -> int:
    with noted(""):
        return left + right


def ticket(seconds: float) -> None:
    """A job of the lottery: some ask for another run, not more often than they may."""
    job = current_job()
    assert job is not None
    again = job.attempt <= 3 and random.random() < 0.1
    with noted(""):
        time.sleep(seconds)
        if again:
            diary.write(job.id, "asked", "", job.attempt)
            raise Retry("once more", delay=0)


def breed(word: str) -> str:
    """Submit another job; returns its id."""
    return jobs.note.submit(word).id


def beget(acts: list[str], words: list[str], hold: float = 0.0, queue: str | None = None) -> list[str]:
    """Stage a note of each word, and do what acts say; returns their ids."""
    with noted(",".join(words)) as attempt:
        ids = staged(words, hold, queue)
        act(acts[min(attempt, len(acts)) - 1])
        return ids


async def beget_async(words: list[str]) -> list[str]:
    """The same in a coroutine, half of it in a thread."""
    with noted(",".join(words)):
        return staged(words[1:]) + await asyncio.to_thread(staged, words[:1])


def beget_unique(key: str, gate: str) -> str:
    """Stage a job that holds a key until there is a file of that name; returns its id."""
    job = current_job()
    assert job is not None
    return job.later(jobs.hold.options(unique=key).job(gate)).id


def beat() -> None:
    with noted(""):
        time.sleep(0.03)


def staged(words: list[str], hold: float = 0.0, queue: str | None = None) -> list[str]:
    job = current_job()
    assert job is not None
    return [job.later(jobs.note.options(queue=queue).job(word), hold=hold).id for word in words]


def login(user: str, password: str) -> None:
    """Fail with a secret in one's arguments and one's error."""
    raise ValueError(f"no such user {user!r}, password={password}")


def unspeakable(kind: str) -> object:
    """Return what JSON cannot carry."""
    deep: list[object] = []
    for _ in range(100):
        deep = [deep]
    return {"object": object(), "nan": [1.0, math.nan], "infinity": -math.inf, "half": "\ud800", "depth": deep}[kind]


def nap(seconds: float, word: str = "") -> int:
    """Take so many seconds; returns the process that did it."""
    with noted(word):
        time.sleep(seconds)
    return os.getpid()


async def nap_async(seconds: float, word: str = "") -> int:
    with noted(word):
        await asyncio.sleep(seconds)
    return os.getpid()


def pulse(seconds: float) -> int:
    """Write into the diary all the time; returns the process that did it."""
    job = current_job()
    assert job is not None
    until = time.monotonic() + seconds
    with noted(""):
        while time.monotonic() < until:
            diary.write(job.id, "pulse", "", job.attempt)
            time.sleep(LOOK)
    return os.getpid()


@contextmanager
def by_itself() -> Iterator[None]:
    """Note when another one runs at the same time, wherever that may be."""
    job = current_job()
    assert job is not None
    lock = os.open(os.environ[diary.VARIABLE] + ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        diary.write(job.id, "overlap", "", job.attempt)
    try:
        yield
    finally:
        os.close(lock)


def alone(seconds: float, act_first: str = "return", gate: str = "") -> int:
    """Write into the diary all the time, for so many seconds and until there is a file; returns the process."""
    job = current_job()
    assert job is not None
    until = time.monotonic() + seconds
    with by_itself(), noted(SOLE):
        if job.attempt == 1:
            act(act_first)
        while time.monotonic() < until or (gate and not os.path.exists(gate)):
            diary.write(job.id, "pulse", SOLE, job.attempt)
            time.sleep(LOOK)
    return os.getpid()


async def alone_async(seconds: float) -> int:
    job = current_job()
    assert job is not None
    with by_itself(), noted(SOLE):
        await asyncio.sleep(seconds)
    return os.getpid()


def hold(gate: str) -> int:
    """Run until there is a file of that name; returns the process that did it."""
    with noted(gate):
        while not os.path.exists(gate):
            time.sleep(LOOK)
    return os.getpid()


async def hold_async(gate: str) -> int:
    with noted(gate):
        while not os.path.exists(gate):
            await asyncio.sleep(LOOK)
    return os.getpid()


def work(gate: str, ends: str = "return") -> None:
    """Say how far it is, log a line, wait for the gate, and do what `ends` says."""
    job = current_job()
    assert job is not None
    job.progress(3, 10, "page 3")
    logging.getLogger("shop.pages").warning("page %d is missing", 4)
    hold(gate)
    act(ends)


def say(words: Sequence[object], gate: str = "", acts: Sequence[str] = ()) -> int:
    """Emit words, wait for the gate before the last of them, and do this attempt's act; returns how many were kept."""
    job = current_job()
    assert job is not None
    kept = sum([job.emit(word) for word in words[:-1]])
    if gate:
        hold(gate)
    kept += job.emit(words[-1])
    act(acts[job.attempt - 1] if job.attempt <= len(acts) else "return")
    return kept


async def say_async(words: Sequence[object], gate: str = "") -> int:
    """The same in a coroutine."""
    job = current_job()
    assert job is not None
    kept = sum([job.emit(word) for word in words[:-1]])
    if gate:
        await hold_async(gate)
    return kept + job.emit(words[-1])


def take_longer(seconds: float, more: float) -> int:
    """Take so many seconds, after asking for more time than there is; returns the process that did it."""
    job = current_job()
    assert job is not None
    job.extend(more)
    return nap(seconds)


def freeze(seconds: float) -> int:
    """Hold the interpreter's lock in C code: no other thread of this process runs, no signal is handled."""
    with noted(""):
        ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))
    return os.getpid()


def stubborn() -> None:
    """Refuse to be interrupted."""
    with noted(""):
        while True:
            try:
                while True:
                    time.sleep(0.01)
            except Exception:
                continue


def parent() -> None:
    """Start a process that ignores TERM, and wait for it. Its pid is the word of the diary's line."""
    command = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", command])
    with noted(str(child.pid)):
        while True:
            try:
                child.wait()
            except Exception:
                continue


def kill_worker() -> None:
    """Kill the supervisor of this executor; the kernel ends the rest of the tree."""
    with noted(""):
        above = psutil.Process(os.getppid())
        while above.name().startswith("kq-"):  # the nursery, and another one before it where the job runs alone
            above = psutil.Process(above.ppid())
        above.kill()
        time.sleep(600)


def about(word: str, breaks: str = "", world: str = "") -> str:
    """The key of a deed."""
    return word


def happened(word: str, breaks: str = "", world: str = "") -> bool:
    """What the world says of a deed."""
    return world == "happened"


def deed(word: str, breaks: str = "", world: str = "") -> str:
    """Something that is to be done once for each word. breaks: an act that follows it in the first attempt."""
    job = current_job()
    assert job is not None
    diary.write(job.id, "acted", word, job.attempt)
    if breaks and job.attempt == 1:
        act(breaks)
    return word


def paper(word: str, breaks: str = "", world: str = "") -> str:
    """What runs instead of a deed."""
    with noted(word):
        return f"paper for {word}"


def stage(acts: list[str]) -> list[int]:
    """Do what acts say, one for each job type that the job comes to, the last one for all that follow.

    Returns which of them answered, and in which attempt.
    """
    job = current_job()
    assert job is not None
    with noted(f"{job.type}: {','.join(acts)}") as attempt:
        act(acts[min(job.degraded_by, len(acts) - 1)])
        return [job.degraded_by, attempt]


def narrow(acts: list[str], also: str) -> list[int]:
    """What takes an argument that others don't."""
    return stage(acts)


def perform(acts: list[str]) -> int:
    """Do what acts say, one for each attempt, the last one for all that follow; returns the attempt's number."""
    with noted(",".join(acts)) as attempt:
        act(acts[min(attempt, len(acts)) - 1])
        return attempt


def act(name: str) -> None:
    match name.partition(" ")[::2]:
        case "raise", kind:
            raise {"RuntimeError": RuntimeError, "ValueError": ValueError, "OSError": OSError}[kind]("as asked")
        case "signal", number:
            os.kill(os.getpid(), int(number))
            time.sleep(600)
        case "exit", code:
            os._exit(int(code))
        case "storage", _:
            raise BadStorage("the disk is full")
        case "hang", _:
            time.sleep(600)
        case "wait", gate:
            while not os.path.exists(gate):
                time.sleep(LOOK)
            raise OSError("as asked")
        case "spin", _:
            # In C, with the interpreter's lock: no signal is handled, no other thread runs, and it never ends.
            collections.deque(itertools.repeat(None), maxlen=0)
        case "retry", delay:
            raise Retry("as asked", delay=float(delay) if delay else None)
        case "bad", why:
            raise BadJob(why or "row 7 has no date")
        case "nap", seconds:
            time.sleep(float(seconds))
        case "hold", gate:
            while not os.path.exists(gate):
                time.sleep(LOOK)
        case "nothing", _:
            raise NotDone("the door was shut")
        case "bury", _:
            raise Bury("a human should look")
        case _:
            assert name == "return", name


app = App(os.environ.get(NAME, "contract"), queue=os.environ.get(QUEUE, "contract"))
jobs = Jobs(app)
