"""Where jobs are, as a supervisor finds out for who asks from outside. It waits for nobody; see lookout."""

from __future__ import annotations

import asyncio
import re
import selectors
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from kq.clock import Clock
from kq.values.stack import Frame, Stack, of_job
from kq.worker import sleep
from kq.worker.child import Executor
from kq.worker.lookout import ASKED, SHOWN
from kq.worker.pool import Pool
from kq.worker.task import Task
from kq.worker.usage import condition

#: Seconds that an executor has to tell by itself, and then that C code in it has.
PATIENCE, MORE = 0.5, 0.5
#: And that a coroutine has whose event loop has nothing else to do: on a busy machine it takes long to be its turn.
IDLE = 3.0
#: Seconds between two looks at what it has told.
PAUSE = 0.01

_THREAD = re.compile(r"^(?:Current t|T)hread 0x([0-9a-f]{1,16})\b", re.MULTILINE)
_FRAME = re.compile(r'^  File "(.*)", line ([0-9]{1,9}) in (.*)$', re.MULTILINE)
_Line = Annotated[int, msgspec.Meta(ge=0, lt=10**9)]
_decode = msgspec.json.Decoder(list[tuple[str, _Line, str]]).decode

LOOP = "the event loop of its executor does not come round: it stands here, in this job or in another one"
CODE = "Python code there did not come to its turn in time: a call in C keeps it or waits, or the machine is busy"
AWAITS = "it awaits: its event loop has nothing to run just now. Where in its code, it did not say in time"


@dataclass(slots=True)
class Question:
    """Where task is, of executor. since: when it was put; monotonic. shown: C code was asked. told: what it said."""

    token: str
    executor: Executor
    task: Task
    since: float = 0.0
    shown: bool = False
    told: bytes = b""


class Stacks:
    """The questions of one supervisor: one at a time for each executor."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool, self._clock = pool, clock
        self._questions: list[Question] = []
        self._heard: set[str] = set()  # tokens
        self._answers: list[tuple[str, Stack]] = []

    @property
    def due(self) -> float:
        """When to look() again, monotonic."""
        return self._clock.monotonic() + PAUSE if self._questions else float("inf")

    def heed(self, wanted: Mapping[str, str]) -> None:
        """Find out where jobs are. wanted: their ids, by the token with which each is asked for."""
        new = wanted.keys() - self._heard
        self._heard = set(wanted)
        for token in new:
            found = [pair for pair in self._pool.tasks() if pair[1].head.id == wanted[token] and pair[1].started]
            self._questions += [Question(token, *pair) for pair in found]
            if not found:
                self._answers.append((token, Stack(wanted[token], "", self._pool.worker)))

    def look(self) -> list[tuple[str, Stack]]:
        """The answers that there are by now, and to which tokens."""
        now, busy = self._clock.monotonic(), set[int]()
        for question in list(self._questions):
            number = question.executor.number
            if number not in busy and (stack := self._asked(question, now)) is not None:
                self._questions.remove(question)
                self._answers.append((question.token, stack))
            busy.add(number)
        answers, self._answers = self._answers, []
        return answers

    def _asked(self, question: Question, now: float) -> Stack | None:
        """What there is to answer; None while it may still come."""
        executor, task = question.executor, question.task
        if executor.tasks.get(task.seq) is not task or executor.gone:
            return Stack(task.head.id, "", self._pool.worker)  # it has ended
        if not question.since:
            question.since = now
            executor.page.ask(task.seq)
            executor.signal(ASKED)
            return None
        told, before = executor.page.told(), question.told
        question.told = told
        if (frames := frames_told(told)) is not None:
            return self._stack(question, frames, now)
        if not question.shown:
            if now >= question.since + PATIENCE:
                question.shown = True
                executor.signal(SHOWN)
            return None
        if told and told == before:  # it is all there
            shown, is_main = _shown(told.decode("utf-8", "replace"), executor.page.thread_of(task.seq))
            if not _is_idle(shown):
                return self._stack(question, shown, now, LOOP if is_main and self._pool.kind == "async" else CODE)
            return None if now < question.since + IDLE else self._stack(question, shown, now, AWAITS)
        if now < question.since + PATIENCE + MORE:
            return None
        state = condition(executor.pid)
        return self._stack(question, [], now, f"process {executor.pid} did not answer: {state}")

    def _stack(self, question: Question, frames: list[Frame], now: float, note: str = "") -> Stack:
        task, executor = question.task, question.executor
        seconds = now - task.started
        return Stack(task.head.id, task.head.type, self._pool.worker, seconds, executor.pid, of_job(frames), note)


def frames_told(told: bytes) -> list[Frame] | None:
    """What Python code said of the job that it was asked for."""
    for line in told.splitlines(keepends=True):
        if line.startswith(b"[") and line.endswith(b"\n"):
            try:
                return [Frame(*each) for each in _decode(line)]
            except msgspec.MsgspecError:  # a job wrote there
                return None
    return None


def _is_idle(frames: Sequence[Frame]) -> bool:
    """Whether they are of an event loop that waits for something to do."""
    *before, last = frames or [Frame("", 0, "")]
    return last.file in (selectors.__file__, sleep.__file__) and any(
        frame.file == asyncio.base_events.__file__ for frame in before
    )


def _shown(text: str, thread: int) -> tuple[list[Frame], bool]:
    """The stack of that thread among those that C code wrote down, and whether it is the main thread's."""
    parts = _THREAD.split(text)[1:]
    threads = dict(zip([int(each, 16) for each in parts[::2]], parts[1::2], strict=True))
    last = list(threads)[-1:]
    found = threads.get(thread) or text
    frames = [Frame(file, int(line), name) for file, line, name in _FRAME.findall(found)]
    return frames[::-1], last == [thread]
