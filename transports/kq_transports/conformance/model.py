"""A model test: random steps against an engine and against a plain sorted list, which must agree.

Hypothesis chooses the steps and shrinks a disagreement to the few that show it. Lease loss is among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Literal, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kq_transports.conformance.engine.world import Connect
from kq_transports.engine import Action, Delivery, Engine, LeaseLost, Message, Swap, Verdict, Want

SOON = 0.01  # seconds: a delay that is over after an `advance`
LATE = 3600.0  # seconds: a delay that is never over here
DYING = 0.03  # seconds: the lease of one that is going to lose it

T = TypeVar("T")

ZOMBIE = 2  # the seat of a third connection, which dies

Waits = Literal["now", "soon", "late"]

priorities = st.integers(0, 9)
delays: st.SearchStrategy[Waits] = st.sampled_from(["now", "now", "soon", "late"])
actions = st.sampled_from(Action)
seats = st.integers(0, 1)
#: Which of those that there are, counted round: what is drawn must not depend on what happened, because what
#: happened depends on time.
picks = st.lists(st.integers(0, 11), min_size=1, max_size=4)


@dataclass(slots=True)
class Entry:
    """What the list knows of a message. waits: "soon" may have become ready at any time."""

    id: str
    place: int
    priority: int
    waits: Waits
    body: bytes
    count: int = 0
    holder: int | None = None
    receipt: str = ""

    @property
    def rank(self) -> tuple[int, int]:
        return (-self.priority, self.place)


def picked(which: list[int], those: list[T]) -> list[T]:
    """Some of those, each once."""
    return [those[i] for i in dict.fromkeys(n % len(those) for n in which)] if those else []


class EngineModel(RuleBasedStateMachine):
    """Two connections to one queue, and the sorted list that tells what they must see.

    connect: opens a connection. elapse: lets the broker's time pass. queue: one that nothing else uses.
    """

    def __init__(self, connect: Connect, elapse: Callable[[float], None], queue: str) -> None:
        super().__init__()
        self._connect, self._elapse, self.queue = connect, elapse, queue
        self.entries: dict[str, Entry] = {}
        self.old_receipts: list[str] = []
        self._places, self._names = count(), count()
        self.engines: list[Engine] = []

    @initialize()
    def open(self) -> None:
        self.engines = [self._fresh(), self._fresh()]
        self.engines[0].declare(self.queue, {"x-max-priority": 9})

    def teardown(self) -> None:
        for engine in self.engines:
            engine.close()

    # The steps.

    @rule(priority=priorities, waits=delays, amount=st.integers(1, 4))
    def publish(self, priority: int, waits: Waits, amount: int) -> None:
        self.engines[0].publish([self._new(f"m{next(self._names)}", priority, waits) for _ in range(amount)])

    @rule(which=picks, priority=priorities)
    def publish_again(self, which: list[int], priority: int) -> None:
        known = picked(which, sorted(self.entries))
        self.engines[1].publish([Message(id, self.queue, b"again", priority) for id in known])

    @rule(seat=seats, limit=st.integers(1, 4))
    def reserve(self, seat: int, limit: int) -> None:
        self._taken(seat, limit, self.engines[seat].reserve([Want((self.queue,), limit)]))

    @rule(which=picks, action=actions, limit=st.integers(1, 4))
    def settle_and_reserve(self, which: list[int], action: Action, limit: int) -> None:
        verdicts = self._end(picked(which, self._held(0)), action)
        self._taken(0, limit, self.engines[0].reserve([Want((self.queue,), limit)], verdicts))

    @rule(which=picks, action=actions)
    def settle(self, which: list[int], action: Action) -> None:
        assert self.engines[0].settle(self._end(picked(which, self._held(0)), action)) == []

    @rule(which=picks, priority=priorities, waits=delays)
    def finish_with_a_follow_up(self, which: list[int], priority: int, waits: Waits) -> None:
        verdicts = self._end(picked(which, self._held(1)), Action.DONE)
        follow_up = self._new(f"m{next(self._names)}", priority, waits)
        assert self.engines[1].settle(verdicts, [follow_up]) == []

    @rule(which=picks, priority=priorities, waits=delays)
    def finish_and_publish_it_anew(self, which: list[int], priority: int, waits: Waits) -> None:
        chosen = picked(which, self._held(1))
        verdicts = self._end(chosen, Action.DONE)
        assert self.engines[1].settle(verdicts, [self._new(entry.id, priority, waits) for entry in chosen]) == []

    @rule(which=picks, seat=seats, action=actions)
    def settle_what_is_over(self, which: list[int], seat: int, action: Action) -> None:
        receipts = picked(which, self.old_receipts)
        follow_ups = [Message("never", self.queue, b"")] if receipts else []
        stale = self.engines[seat].settle([Verdict(receipt, action) for receipt in receipts], follow_ups)
        assert stale == receipts

    @rule(seat=seats, limit=st.integers(1, 3), how=st.sampled_from(["expel", "close", "lapse"]))
    def lose_a_connection(self, seat: int, limit: int, how: str) -> None:
        if how == "lapse":
            self._lapse(limit)
            return
        engine, other = self.engines[seat], self.engines[1 - seat]
        if how == "expel":
            engine.beat()
            assert other.expel(engine.options.name)
            self._is_refused(engine)
        engine.close()
        self._give_back(self._held(seat))
        self.engines[seat] = self._fresh()

    @rule(which=picks)
    def remove(self, which: list[int]) -> None:
        chosen = picked(which, sorted(self.entries))
        removable = {id for id in chosen if self.entries[id].holder is None}
        assert set(self.engines[0].remove(self.queue, chosen)) == removable
        for id in removable:
            del self.entries[id]

    @rule(which=picks, priority=priorities, waits=delays, keeps_due=st.booleans(), changed=st.booleans())
    def swap(self, which: list[int], priority: int, waits: Waits, keeps_due: bool, changed: bool) -> None:
        chosen = [self.entries[id] for id in picked(which, sorted(self.entries))]
        fits = [entry.holder is None and not changed for entry in chosen]
        swaps = [
            Swap(
                old.id,
                b"no longer" if changed else old.body,
                (self._new(old.id, priority, old.waits if keeps_due else waits, f"{next(self._names)}"),)
                if fit
                else (),
                keeps_due,
            )
            for old, fit in zip(chosen, fits, strict=True)
        ]
        assert self.engines[1].swap(self.queue, swaps) == fits

    @rule()
    def advance(self) -> None:
        self._elapse(SOON * 1.5)
        for entry in self.entries.values():
            if entry.waits == "soon":
                entry.waits = "now"

    # What must hold after each.

    @invariant()
    def counts_agree(self) -> None:
        if not self.engines:
            return
        counts = self.engines[0].count(self.queue)
        free = [e for e in self.entries.values() if e.holder is None]
        assert counts.held == len(self.entries) - len(free)
        assert counts.ready + counts.delayed == len(free)
        assert counts.delayed >= sum(e.waits == "late" for e in free)

    @rule()
    def orders_agree(self) -> None:
        seen = [s.id for s in self.engines[1].browse(self.queue)]
        assert seen == [e.id for e in sorted(self._waiting(seen), key=lambda e: e.rank)]
        held = {s.id: s.holder for s in self.engines[1].browse(self.queue, "held")}
        assert held == {
            e.id: self.engines[e.holder].options.name for e in self.entries.values() if e.holder is not None
        }

    # The list.

    def _fresh(self) -> Engine:
        return self._connect()

    def _new(self, id: str, priority: int, waits: Waits, says: str = "") -> Message:
        body = (says or id).encode()
        self.entries[id] = Entry(id, next(self._places), priority, waits, body)
        delay = {"now": 0.0, "soon": SOON, "late": LATE}[waits]
        return Message(id, self.queue, body, priority, delay)

    def _held(self, seat: int) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.holder == seat]

    def _waiting(self, soon: Iterable[str]) -> list[Entry]:
        """What is ready for certain, and those of soon that may be."""
        return [
            e
            for e in self.entries.values()
            if e.holder is None and (e.waits == "now" or (e.waits == "soon" and e.id in soon))
        ]

    def _taken(self, seat: int, limit: int, got: list[Delivery]) -> None:
        expected = sorted(self._waiting([d.id for d in got]), key=lambda e: e.rank)[:limit]
        assert [(d.id, d.body, d.priority, d.count) for d in got] == [
            (e.id, e.body, e.priority, e.count) for e in expected
        ]
        for delivery, entry in zip(got, expected, strict=True):
            entry.holder, entry.receipt, entry.waits = seat, delivery.receipt, "now"

    def _end(self, entries: list[Entry], action: Action) -> list[Verdict]:
        verdicts = [Verdict(entry.receipt, action) for entry in entries]
        self._give_back(entries)
        if action is Action.DONE:
            for entry in entries:
                del self.entries[entry.id]
        return verdicts

    def _give_back(self, entries: list[Entry]) -> None:
        for entry in entries:
            self.old_receipts.append(entry.receipt)
            entry.holder, entry.count = None, entry.count + 1

    def _lapse(self, limit: int) -> None:
        """Somebody takes messages, falls silent, and comes back when its lease is over."""
        zombie = self._connect(lease=DYING)
        try:
            got = zombie.reserve([Want((self.queue,), limit)])
            self._taken(ZOMBIE, limit, got)
            self._elapse(DYING * 1.5)
            self._give_back(self._held(ZOMBIE))
            self.reserve(0, 1)
            self._is_refused(zombie)
        finally:
            zombie.close()

    def _is_refused(self, engine: Engine) -> None:
        try:
            engine.settle([], [Message("never", self.queue, b"")])
        except LeaseLost:
            return
        raise AssertionError("a dead connection was heard")
