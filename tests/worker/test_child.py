"""An executor as its supervisor sees it: which of its jobs have begun, although nobody says so when they do."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket
from collections.abc import Iterator

import msgspec
import pytest

from kq.broker import Delivery
from kq.values.job import Counters
from kq.values.message import Head
from kq.values.outcome import Died, GivenBack, Outcome, Rules
from kq.worker.child import Executor
from kq.worker.limits import Limits
from kq.worker.task import Kind, Task
from kq.worker.wire import DONE, Claims, Ended, Frames, Order, Page

KIND = Kind("t", Rules(), 60.0, 0.0)


ONCE = Kind("t", Rules(on_lost="bury"), 60.0, 0.0)


def tasks(queue: str, *ids: str, kind: Kind = KIND) -> list[Task]:
    return [
        Task(Delivery(1, queue, id, {}, b"{}", 0, False, ""), Head(id=id, type="t"), kind, Counters()) for id in ids
    ]


class Shared:
    """An executor with two slots, and what its process does: claims jobs, and tells of ends."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.dead = False
        self.executor = Executor(1, ours, Page(2), Claims(20), slots=2, signalled=False)
        self.frames, self.read = Frames(), list[int]()

    def give(self, given: list[Task], limit: int = 0) -> list[str]:
        """Give it tasks; the ids of all that begin by that."""
        self.executor.give(given, limit)
        self.executor.run(given, "w", observed=False)
        return self.begun()

    def begun(self) -> list[str]:
        return [task.head.id for task in self.executor.begins(1.0, 1.0)]

    def claim(self, *claimed: Task) -> None:
        assert all(self.executor.claims.claim(task.seq) for task in claimed)

    def end(self, task: Task) -> list[str]:
        """A task ends; the ids of all that begin by that."""
        ended, _ = self.executor.ended(Ended(task.seq, DONE), 1.0, 1.0)
        assert ended is task
        return self.begun()

    def told(self) -> list[int]:
        """The seqs of the jobs that its process has read and may begin, as far as they have come."""
        self.executor.flush()
        self.theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while data := self.theirs.recv(1 << 18):
                for each in self.frames.feed(data):
                    self.read += [run.seq for run in msgspec.msgpack.decode(each, type=Order).run]
        told, self.read = self.read, []
        return [seq for seq in told if self.executor.claims.claim(seq)]

    def take_back(self) -> list[str]:
        return [task.head.id for task in self.executor.take_back()]

    def die(self) -> dict[Task, Outcome]:
        self.dead = True
        return self.executor.bury()


@pytest.fixture
def shared() -> Iterator[Shared]:
    shared = Shared()
    yield shared
    if not shared.dead:
        shared.executor.close()
    shared.theirs.close()


def test_jobs_begin_in_the_order_in_which_they_were_given(shared: Shared) -> None:
    given = tasks("q", "1", "2", "3", "4")
    assert shared.give(given) == ["1", "2"]
    assert shared.end(given[1]) == ["3"]
    assert shared.end(given[0]) == ["4"]


def test_what_is_taken_back_leaves_its_place_at_the_gate_of_its_queue(shared: Shared) -> None:
    wide, narrow = tasks("wide", "1", "2"), tasks("narrow", "3", "4")
    assert shared.give(wide) == ["1", "2"]
    shared.claim(*wide)
    assert shared.give(narrow, limit=1) == []
    assert shared.take_back() == ["3", "4"]
    assert shared.give(tasks("narrow", "5"), limit=1) == []
    assert shared.end(wide[0]) == ["5"]


@pytest.fixture
def narrow(shared: Shared) -> Shared:
    """One of a user who has so many pipes that the system gives him small ones."""
    fcntl.fcntl(shared.executor.claims.reader, fcntl.F_SETPIPE_SZ, mmap.PAGESIZE)
    shared.executor.sock.setblocking(False)
    return shared


def test_more_jobs_than_there_is_room_for_claims_are_sent_one_part_after_the_other(narrow: Shared) -> None:
    narrow.give(tasks("q", *map(str, range(1000))))
    told = narrow.told()
    assert 0 < len(told) < 1000
    while more := narrow.told():
        told += more
    assert told == list(range(1, 1001))
    assert not narrow.executor.held


def test_jobs_that_there_was_no_room_to_claim_are_taken_back_like_others(narrow: Shared) -> None:
    given = tasks("q", *map(str, range(1000)))
    narrow.give(given)
    narrow.claim(given[0])
    assert narrow.take_back() == [task.head.id for task in given[1:]]
    assert narrow.told() == []


def test_what_waited_at_a_gate_and_was_taken_back_does_not_begin(shared: Shared) -> None:
    narrow = tasks("narrow", "1", "2", "3")
    assert shared.give(narrow, limit=1) == ["1"]
    shared.claim(narrow[0])
    assert shared.take_back() == ["2", "3"]
    assert shared.end(narrow[0]) == []
    assert shared.give(tasks("narrow", "4"), limit=1) == ["4"]


def test_what_was_thought_to_have_begun_and_was_taken_back_leaves_its_slot(shared: Shared) -> None:
    given = tasks("q", "1", "2")
    assert shared.give(given) == ["1", "2"]
    shared.claim(given[0])
    assert shared.take_back() == ["2"]
    assert not shared.executor.full
    assert shared.give(tasks("q", "3", "4")) == ["3"]


def test_a_job_that_asked_for_more_time_in_time_is_not_interrupted(shared: Shared) -> None:
    class Late:
        """A clock, a minute and a second after the job began."""

        def monotonic(self) -> float:
            return 1.0 + KIND.timeout + 1.0

        now = monotonic

    (task,) = tasks("q", "1")
    shared.give([task])
    shared.executor.pid = os.getpid()
    page, limits = shared.executor.page, Limits({1: shared.executor}, Late(), 0)
    page.mark(0, task.seq)
    page.slates[0].extend(600)
    limits.enforce()
    assert not task.interrupted
    assert limits.next_due == 1.0 + KIND.timeout + 600


@pytest.mark.parametrize(("kind", "over"), [(KIND, GivenBack), (ONCE, Died)])
def test_what_is_to_start_once_has_started_though_its_slot_is_anothers_and_its_end_was_not_told(
    shared: Shared, kind: Kind, over: type
) -> None:
    short, following, *waiting = given = tasks("q", "short", "following", "third", "fourth", kind=kind)
    shared.give(given)
    shared.claim(short, following)
    shared.executor.page.mark(0, short.seq)
    shared.executor.page.mark(0, following.seq)
    outcomes = shared.die()
    assert isinstance(outcomes[short], over)
    assert isinstance(outcomes[following], Died)
    assert all(isinstance(outcomes[task], GivenBack) for task in waiting)


def test_what_is_to_start_once_has_not_started_in_an_executor_that_was_killed_before_its_birth(shared: Shared) -> None:
    (task,) = given = tasks("q", "1", kind=ONCE)
    shared.give(given)
    shared.executor.withhold()
    assert isinstance(shared.die()[task], GivenBack)
