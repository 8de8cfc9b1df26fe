"""The line of jobs that wait for an executor: who is next, and who goes together."""

from __future__ import annotations

import pytest

from kq.broker import Delivery
from kq.values.job import Counters
from kq.values.message import Head
from kq.values.outcome import Rules
from kq.worker.line import Line
from kq.worker.task import Kind, Task

KIND, OTHER = (Kind(name, Rules(), 60.0, 0.0) for name in ("t", "u"))


def task(
    arrival: int, queue: str = "q", priority: int = 5, kind: Kind = KIND, *, redelivered: bool = False, lost: int = 0
) -> Task:
    delivery = Delivery(arrival, queue, str(arrival), {}, b"{}", priority, redelivered, "")
    return Task(delivery, Head(id=str(arrival), type=kind.name), kind, Counters(lost=lost), arrival)


def taken(line: Line, room: int = 10) -> list[int]:
    return [each.arrival for each in line.take(most, lambda queue, limit: room)]


def most(first: Task) -> int:
    """How many may go with first."""
    return 1 if first.suspect or first.poison else 10


@pytest.fixture
def line() -> Line:
    line = Line(slots=4)
    line.limits = {"q": 4, "wide": 4, "narrow": 1}
    return line


def test_what_matters_more_is_first_and_equals_come_in_their_order(line: Line) -> None:
    for each in (task(1), task(2, priority=9), task(3), task(4, priority=0), task(5, priority=9)):
        line.put(each)
    assert taken(line) == [2, 5, 1, 3, 4]


def test_what_comes_back_is_where_it_was(line: Line) -> None:
    for each in (task(2), task(3), task(1)):
        line.put(each)
    assert taken(line) == [1, 2, 3]


@pytest.mark.parametrize(
    "apart",
    [task(2, redelivered=True), task(2, lost=1), task(2, kind=OTHER)],
    ids=["may run elsewhere", "lost executors", "another kind"],
)
def test_jobs_that_are_to_go_alone_do_not_go_with_the_one_before(line: Line, apart: Task) -> None:
    for each in (task(1), apart, task(3)):
        line.put(each)
    assert [taken(line) for _ in range(3)] == [[1], [2], [3]]


def test_those_of_a_queue_with_a_limit_go_apart_and_let_others_pass_while_that_is_reached(line: Line) -> None:
    for each in (task(1, "narrow"), task(2, "narrow"), task(3), task(4, "wide")):
        line.put(each)
    assert [taken(line, room=0) for _ in range(3)] == [[3], [4], []]
    assert taken(line, room=2) == [1, 2]
