"""The herald: it tells in the background, waits for nobody, and rather tells nothing than too late."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

import pytest

from kq import events as module
from kq.clock import new_id
from kq.errors import BrokerUnreachable
from kq.events import Herald, Memory, heard, remembered
from kq.state.memory import MemoryStore
from kq.values.event import Event, batches, decode


def event(name: str = "started", job: str = "1", queue: str = "mail") -> Event:
    return Event(event=name, at=1.0, job=job, queue=queue)


class Told:
    """Where events arrive. breaks: so many times it does not answer; gate: it waits for that each time."""

    def __init__(self, breaks: int = 0, gate: threading.Event | None = None) -> None:
        self.messages: list[tuple[str, list[Event]]] = []
        self.some = threading.Condition()
        self.breaks, self.gate, self.closed = breaks, gate, 0

    def tell(self, messages: Sequence[tuple[str, bytes]]) -> None:
        if self.gate is not None:
            assert self.gate.wait(10)
        if self.breaks:
            self.breaks -= 1
            raise BrokerUnreachable("gone", stored="unknown")
        with self.some:
            self.messages += [(key, decode(body)) for key, body in messages]
            self.some.notify_all()

    def close(self) -> None:
        self.closed += 1

    @property
    def events(self) -> list[Event]:
        return [event for _, batch in self.messages for event in batch]

    def arrived(self, number: int) -> list[Event]:
        with self.some:
            assert self.some.wait_for(lambda: len(self.events) >= number, 10), self.events
        return self.events


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ALONE", 0.01)
    monkeypatch.setattr(module, "PAUSE", 0.01)


def test_a_memory_is_bounded_and_keeps_the_latest() -> None:
    store = MemoryStore(new_id())
    memory = Memory(store, 60, most=500)
    for number in range(0, 2000, 50):
        memory.tell(batches((each.key, each) for each in (event(job=str(n)) for n in range(number, number + 50))))
    told = [int(each.job) for each in remembered(store, 0)]
    assert told == list(range(2000 - len(told), 2000))
    assert 500 - 200 <= len(told) <= 500 + 200
    assert remembered(store, 2.0) == []


def test_events_are_told_in_order_under_the_key_of_their_queue() -> None:
    told = Told()
    herald = Herald(lambda: told)
    herald.say([event(job="1"), event(job="2", queue="bulk"), event(job="3"), Event(event="ready", at=1.0, worker="w")])
    told.arrived(4)
    herald.close()
    assert {key: [each.job for each in batch] for key, batch in told.messages} == {
        "job.mail": ["1", "3"],
        "job.bulk": ["2"],
        "worker": [""],
    }
    assert told.closed == 1


def test_what_waits_when_it_is_closed_is_told() -> None:
    told = Told()
    herald = Herald(lambda: told)
    herald.say(event(job=str(number)) for number in range(2500))
    herald.close(10)
    assert [each.job for each in told.events] == [str(number) for number in range(2500)]


def test_saying_waits_for_nobody_and_what_is_too_much_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 10)
    gate = threading.Event()
    told = Told(gate=gate)
    herald = Herald(lambda: told)
    herald.say([event()])
    began = time.monotonic()
    for _ in range(100):
        herald.say([event()])
    assert time.monotonic() - began < 1.0
    gate.set()
    herald.close(10)
    lost = [each.n or 0 for each in told.events if each.event == "lost"]
    assert sum(lost) + len(told.events) - len(lost) == 101
    assert sum(lost) > 50


def test_a_broker_that_does_not_answer_costs_events_and_nothing_else() -> None:
    told = Told(breaks=1)
    herald = Herald(lambda: told)
    herald.say([event(job="missed")])
    while told.breaks:
        time.sleep(0.001)
    herald.say([event(job="told")])
    events = told.arrived(2)
    herald.close()
    assert [(each.event, each.job, each.n) for each in events] == [("started", "told", None), ("lost", "", 1.0)]


def test_a_connection_that_can_not_be_made_is_tried_again() -> None:
    told, tries = Told(), iter([BrokerUnreachable("refused", stored="no")])

    def connect() -> Told:
        for error in tries:
            raise error
        return told

    herald = Herald(connect)
    herald.say([event()])
    assert [each.event for each in _until_lost(herald, told)] == ["started", "lost"]
    herald.close()


def _until_lost(herald: Herald, told: Told) -> list[Event]:
    until = time.monotonic() + 10
    while not told.events and time.monotonic() < until:
        herald.say([event()])
        time.sleep(0.02)
    return told.events[-2:]


def test_when_nobody_listens_nothing_is_told_and_it_is_asked_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK", 60.0)
    asked, told = threading.Event(), Told()

    def nobody() -> bool:
        asked.set()
        return False

    herald = Herald(lambda: told, nobody)
    before = herald.listened
    herald.say([event()])
    assert asked.wait(10)
    herald.close()
    assert (before, herald.listened) == (True, False)
    assert told.events == []


def test_a_child_tells_what_it_says_itself_and_nothing_of_its_parents() -> None:
    gate, reader_writer = threading.Event(), os.pipe()
    herald = Herald(lambda: Told(gate=gate))
    herald.say([event(job="parent")])
    child = os.fork()
    if child == 0:
        told = Told()
        herald._line = lambda: told
        herald.say([event(job="child")])
        told.arrived(1)
        os.write(reader_writer[1], ",".join(each.job for each in told.events).encode())
        os._exit(0)
    assert os.read(reader_writer[0], 100) == b"child"
    os.waitpid(child, 0)
    gate.set()
    herald.close()
    for descriptor in reader_writer:
        os.close(descriptor)


def test_what_somebody_else_says_there_is_passed_over() -> None:
    assert heard(b"\xff nothing") == heard(b'{"event": 1}') == heard(b'[{"at": "x"}]') == []
