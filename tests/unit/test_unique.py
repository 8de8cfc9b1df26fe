"""Unique jobs: what may be said, what goes over the wire, a model of the keys, and calls that fail on their way."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import kq
from kq.app import App
from kq.broker import Delivery, Publisher, Session, Settlement
from kq.clock import new_id
from kq.conformance.between import Between
from kq.conformance.contract.waiting import eventually
from kq.control import Control
from kq.effects.context import CurrentJob, Footing
from kq.errors import BrokerUnreachable, KqError, LeaseLost, NotUnique
from kq.handles.claim import KeyClaims
from kq.handles.handle import Handle
from kq.state.store import Rider, Store, StoreUnreachable, Write
from kq.values.failure import Failure
from kq.values.job import Counters, Job, Settings, State
from kq.values.message import Envelope, Head, decode_body, decode_head, encode_head, replacing
from kq.values.outcome import Bury, Complete, PassOn, Retry, Revoke, Rules, Verdict
from kq.values.record import lease_key, turn_key, unique_key
from kq.values.unique import Conflict, Unique, Until, by_arguments
from kq.worker.keys import Keys, pause
from kq.worker.scribe import Scribe
from kq.worker.task import Kind, Task

_names = itertools.count()


def new_app(**more: Any) -> App:
    """An app on a broker of its own."""
    app = App("unique", f"memory://unique-{next(_names)}", queue="unique", submit_timeout=1.0, **more)
    app.job(name="note")(lambda word="": word)
    return app


# What may be said.


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"key": ""}, "unique is empty"),
        ({"key": 7}, "unique 7 is no key"),
        ({"until": "never"}, "until 'never' is unknown; use one of start, end, gone"),
        ({"conflict": "fight"}, "conflict 'fight' is unknown"),
        ({"period": 0}, "period 0 is out of range"),
        ({"conflict": "debounce", "at_most": -1}, "at_most -1 is out of range"),
        ({"at_most": 5}, "at_most is the end of a delay"),
        ({"conflict": "after", "period": 5}, "'after' can't go with a period"),
        ({"conflict": "replace", "until": "gone"}, "'replace' can't go with a period or until"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_written(said: dict[str, Any], error: str) -> None:
    with pytest.raises((ValueError, TypeError), match=error):
        Unique(**said)


def test_it_is_declared_with_the_type_once_or_with_a_submit() -> None:
    app = new_app()

    @app.job(unique=by_arguments("customer"))
    def remind(customer: int, text: str = "please") -> None: ...

    @app.job(unique=kq.Unique("one", conflict="reject"))
    async def one() -> None: ...

    first = remind.submit(7)
    assert remind.submit(customer=7, text="now") == first != remind.submit(8)
    assert remind.options(unique="other").submit(7) != first
    assert app.submit(remind.name, 7) == first
    held = one.submit()
    with pytest.raises(NotUnique):
        one.submit()
    assert held.revoke()
    assert one.submit() != held


@pytest.mark.parametrize(
    ("job", "error"),
    [
        (Job("1", "elsewhere", settings=Settings(unique=by_arguments)), "elsewhere is not defined here"),
        (Job("1", "note", settings=Settings(unique=by_arguments("wrod"))), "note has no argument 'wrod'"),
        (Job("1", "note", settings=Settings(unique=lambda: "")), "the unique key of note is ''"),
        (Job("1", "note", settings=Settings(unique=Unique("a", conflict="debounce"))), "needs a delay"),
    ],
)
def test_a_key_that_can_not_be_made_is_refused_before_anything_is_stored(job: Job[Any], error: str) -> None:
    app = new_app()
    with pytest.raises((ValueError, TypeError), match=error):
        app.submit(job)
    with Control(app) as control:
        assert control.jobs("unique") == []


def test_what_takes_anothers_place_goes_by_itself() -> None:
    app = new_app()
    only = app.jobs["note"].options(unique=Unique("a", conflict="replace"))
    with pytest.raises(ValueError, match="submit it alone"):
        app.submit_many([only.job(), only.job()])
    with pytest.raises(ValueError, match="submit it alone"), app.transaction():
        only.submit()
    running = CurrentJob(new_id(), "t", "q", 1, float("inf"), Footing(app))
    with pytest.raises(ValueError, match="can't be staged"):
        running.later(only.job())


# Keys of arguments.


def test_arguments_make_the_same_key_however_they_are_written() -> None:
    app = new_app()

    def f(a: float, *, b: dict[str, int] | None = None, c: tuple[int, ...] = ()) -> None: ...

    sign = app.job(name="f", unique=by_arguments)(f).signature
    assert sign.digest([1], {}) == sign.digest([], {"a": 1.0, "b": None}) == sign.digest([1], {"c": ()})
    assert sign.digest([1], {"b": {"x": 1, "y": 2}}) == sign.digest([1], {"b": {"y": 2, "x": 1}})
    assert len({sign.digest([a], {"c": c}) for a in (1, 2) for c in ((), (1,), (1, 2), (2, 1))}) == 8
    assert sign.digest([1], {"c": (1,)}, ["a"]) == sign.digest([1], {}, ["a"]) != sign.digest([1], {})


# What goes over the wire.


def test_a_message_takes_the_place_of_another_with_its_id_and_its_past() -> None:
    old = Head(id="old", type="t", submitted=1.0, repaired=2, again=True, unique="k", unique_at_most=50.0)
    new = Head(id="new", type="t", submitted=9.0, timeout=7.0, unique="k", unique_at_most=99.0)
    made = replacing(encode_head(old), Envelope("new", "q", b"{}", encode_head(new), 9, 30.0), 40.0)
    head = decode_head(made.headers)
    assert (made.id, made.priority, made.delay) == ("old", 9, 10.0)
    assert (head.id, head.submitted, head.repaired, head.again, head.timeout) == ("old", 1.0, 3, True, 7.0)
    assert head.unique_at_most == 50.0
    assert replacing(encode_head(old), Envelope("new", "q", b"{}", encode_head(new), 9, 30.0), 60.0).delay == 0


@pytest.mark.parametrize(("waited", "seconds"), [(-5, 0.05), (0, 0.05), (3, 0.3), (1000, 5.0)])
def test_who_waits_for_its_turn_looks_less_and_less_often(waited: float, seconds: float) -> None:
    task = Task(Delivery(1, "q", "1", {}, b"", 5, False, ""), Head(id="1", type="t", submitted=100.0), KIND, Counters())
    assert pause(task, 100.0 + waited) == pytest.approx(seconds)


# A model.

KIND = Kind("note", Rules(), 1.0, 60.0)
WAYS: list[tuple[Until, Conflict]] = [
    ("end", "join"),
    ("end", "reject"),
    ("gone", "join"),
    ("start", "join"),
    ("start", "replace"),
    ("end", "after"),
    ("end", "replace"),
    ("end", "debounce"),
]
FAILURE = Failure(("ValueError",), "x")
VERDICTS: list[Verdict] = [
    Complete(b"1"),
    Revoke("by ops"),
    Bury(FAILURE, Counters(), "raised"),
    Retry(0.0, Counters(failed=1), FAILURE, "raised"),
]


#: How many jobs a worker of the model holds at most.
HOLDS = 10


class Model(RuleBasedStateMachine):
    """Submits, workers and people around one key; a model says who has it.

    What happens is decided by what is drawn alone: neither by how long it takes nor by ids, which are new each time.
    """

    @initialize(way=some.sampled_from(WAYS))
    def begin(self, way: tuple[Until, Conflict]) -> None:
        self.until, self.conflict = way
        self.turns = self.conflict not in ("join", "reject") and self.until == "end"
        self.app = new_app()
        unique = Unique("k", until=self.until, conflict=self.conflict)
        delay = 1e-3 if self.conflict == "debounce" else None
        self.only = self.app.jobs["note"].options(unique=unique, delay=delay)
        self.place: str | None = None
        self.turn: str | None = None
        self.words: dict[str, str] = {}  # of those that wait or run
        self.running: dict[str, Task] = {}
        self.buried: list[str] = []
        self.count = 0
        self.join()

    def teardown(self) -> None:
        if hasattr(self, "session"):
            self.session.close()
            self.app.close()

    def join(self) -> None:
        """A worker joins."""
        self.arrived: list[Delivery] = []
        name = f"w{next(_names)}"
        self.session = Session(self.app.broker, name, 1e5, {"unique": HOLDS}, self.arrived.append)
        self.app.store.write([Write(lease_key(name), b"1")])
        self.keys, self.scribe = Keys(self.app.store, name), Scribe(name, "host", True, "")

    @rule()
    def submit(self) -> None:
        self.count += 1
        word = str(self.count)
        if self.conflict == "reject" and self.place is not None:
            with pytest.raises(NotUnique) as caught:
                self.only.submit(word)
            assert caught.value.job == self.place
            return
        handle = self.only.submit(word)
        if self.place is None:
            assert handle.id not in self.words
            self.place = handle.id
            self.words[handle.id] = word
        else:
            assert handle.id == self.place
            if self.conflict in ("replace", "debounce"):
                self.words[handle.id] = word

    @rule()
    def take(self) -> None:
        while len(self.arrived) < min(len(self.waiting), HOLDS - len(self.running)):
            assert self.session.next(20.0), f"{self.waiting} wait"
        tasks = [Task(each, decode_head(each.headers), KIND, Counters()) for each in self.arrived]
        self.arrived.clear()
        if not tasks:
            return
        taken = self.keys.take(tasks, time.time())
        assert not taken.joined + taken.unclear
        for task in taken.waiting:
            assert self.turn not in (None, task.head.id)
            self.settle(task, PassOn(0.0, "waits"))
        for task in taken.ready:
            id = task.head.id
            assert decode_body(task.delivery.body)[0] == [self.words[id]]
            assert not self.turns or self.turn in (None, id), "two would run at once"
            self.running[id] = task
            if self.turns:
                self.turn = id
            if self.place == id and (self.turns or self.until == "start"):
                self.place = None

    @property
    def waiting(self) -> list[str]:
        """Who may be taken, now or a moment later."""
        return [id for id in self.words if id not in self.running]

    def settle(self, task: Task, verdict: Verdict) -> None:
        self.app.store.write(list(self.scribe.records(task, verdict, time.time())))
        assert not self.session.settle([Settlement(task.delivery, self.scribe.follow_ups(task, verdict, time.time()))])

    @precondition(lambda self: self.running)
    @rule(
        verdict=some.sampled_from(VERDICTS),
        which=some.integers(0, 5),
    )
    def end(self, verdict: Verdict, which: int) -> None:
        id = list(self.running)[which % len(self.running)]
        self.settle(self.running.pop(id), verdict)
        if isinstance(verdict, Bury):
            self.buried.append(id)
        if not isinstance(verdict, Retry):
            self.over(id, gone=not isinstance(verdict, Bury))

    def over(self, id: str, *, gone: bool) -> None:
        del self.words[id]
        if self.place == id and (gone or self.until != "gone"):
            self.place = None
        if self.turn == id:
            self.turn = None

    @precondition(lambda self: self.running)
    @rule()
    def die(self) -> None:
        self.session.close()
        self.running.clear()
        self.join()

    @precondition(lambda self: self.waiting)
    @rule(which=some.integers(0, 5), bury=some.booleans())
    def take_away(self, which: int, bury: bool) -> None:
        id = self.waiting[which % len(self.waiting)]
        if bury:
            with Control(self.app) as control:
                control.bury(id)
            self.buried.append(id)
        else:
            assert Handle[Any](id, "unique", self.app).revoke()
        self.over(id, gone=not bury)

    @precondition(lambda self: self.buried)
    @rule(which=some.integers(0, 5), delete=some.booleans())
    def repair(self, which: int, delete: bool) -> None:
        id = self.buried[which % len(self.buried)]
        with Control(self.app) as control:
            (job,) = [job for job in control.jobs("unique", State.BURIED) if job.id == id]
            if delete:
                control.delete(id)
                self.place = None if self.place == id else self.place
                self.buried.remove(id)
                return
            (kicked,) = control.kick(ids=[id])
        assert bool(kicked.refused) == (self.place not in (None, id))
        if not kicked.refused:
            self.buried.remove(id)
            self.place, self.words[id] = id, job.args[0]

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        if hasattr(self, "session"):
            told = self.app.store.get([unique_key("k"), turn_key("k")])
            assert told == [None if id is None else id.encode() for id in (self.place, self.turn)]
            assert self.place is None or self.place in self.words or self.place in self.buried

    @invariant()
    def the_broker_has_what_the_model_has(self) -> None:
        if hasattr(self, "session"):
            with Control(self.app) as control:
                has = {*self.words, *self.buried}
                # Whose delay ends between a look at the ready ones and one at the delayed ones is in neither.
                eventually(lambda: {job.id for job in control.jobs("unique")} == has, f"the broker has {has}", 2)


TestModel = Model.TestCase
TestModel.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


def taken(envelope: Envelope) -> Task:
    """A job as a worker has it."""
    delivery = Delivery(1, "unique", envelope.id, envelope.headers, envelope.body, 5, False, "")
    return Task(delivery, decode_head(envelope.headers), KIND, Counters())


def test_a_worker_confirms_the_key_of_a_job_whose_producer_died() -> None:
    app = new_app()
    only = app.jobs["note"].options(unique="k")
    envelope = app.envelope(only.job("a"))
    KeyClaims(app, [(Unique("k"), envelope)], time.monotonic())
    task = taken(envelope)
    app.store.write([Write(lease_key("w"), b"1")])
    assert Keys(app.store, "w").take([task], 0.0).ready == [task]
    assert only.submit("b").id == envelope.id  # at once, and although the broker does not show it


def test_a_job_that_is_submitted_again_leaves_its_key_to_one_that_has_it_meanwhile() -> None:
    app = new_app(state=f"memory://unique-{next(_names)}")
    job = app.jobs["note"].options(unique="k").job("a")
    KeyClaims(app, [(Unique("k"), app.envelope(job))], time.monotonic())  # nobody knows whether it was stored
    app.store.write([Write(unique_key("k"), b"other")])  # which a worker took, when that claim was over
    assert app.submit(job).id == "other"
    assert app.store.get([unique_key("k")]) == [b"other"]


def test_a_delay_that_begins_anew_is_due_when_that_may_end_at_the_latest() -> None:
    app = new_app()
    settings = Settings(delay=60.0, unique=Unique("k", conflict="debounce", at_most=5.0))
    envelope = app.envelope(Job(new_id(), "note", settings=settings))
    head = decode_head(envelope.headers)
    assert envelope.delay == 5.0
    assert head.due == pytest.approx(head.submitted_at + 5.0, abs=0.1)


def test_nobody_takes_a_key_whose_lease_is_over() -> None:
    app = new_app()
    envelope = app.envelope(app.jobs["note"].options(unique="k").job("a"))
    task = taken(envelope)
    with pytest.raises(LeaseLost):
        Keys(app.store, "w").take([task], 0.0)
    assert app.store.get([unique_key("k")]) == [None]


@pytest.mark.parametrize("way", [("end", "replace"), ("end", "after"), ("start", "join")])
def test_nobody_gets_the_handle_of_a_job_that_was_revoked_while_a_worker_had_it(way: tuple[Until, Conflict]) -> None:
    app = new_app()
    until, conflict = way
    only = app.jobs["note"].options(unique=Unique("k", until=until, conflict=conflict))
    first = only.submit("a")
    arrived: list[Delivery] = []
    worker = Session(app.broker, "w", 1e5, {"unique": 10}, arrived.append)
    while not arrived:
        worker.next(0.1)
    assert first.revoke()  # an order, which the worker has not read yet
    worker.close()
    with pytest.raises(BrokerUnreachable, match=f"{first.id}, which has the unique key 'k', was revoked") as caught:
        only.submit("b")
    assert caught.value.stored == "no"
    assert first.revoke()  # now it waits
    assert only.submit("b") != first


# Calls that fail on their way.


class FlakyStore(Between):
    """Fails at one call: before it is made, or when its answer is on the way."""

    def __init__(self, store: Store, at: int, before: bool, rides: bool) -> None:
        super().__init__(store)
        self.left, self._before, self._rides = at, before, rides
        self.timeout = 0.05

    def _call(self, call: Callable[[], Any]) -> Any:
        self.left -= 1
        if self.left == 0 and self._before:
            raise StoreUnreachable("as asked")
        answer = call()
        if self.left == 0:
            raise StoreUnreachable("as asked")
        return answer

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        found: list[bytes | None] = self._call(lambda: self._store.get(keys))
        return found

    def write(self, writes: Sequence[Write]) -> list[bool]:
        made: list[bool] = self._call(lambda: self._store.write(writes))
        return made

    def rider(self, writes: Sequence[Write]) -> Rider | None:
        return self._store.rider(writes) if self._rides else None

    def close(self) -> None: ...


class FlakyPublisher(Publisher):
    """Fails at one publish or replacement, which may have been made."""

    def __init__(self, app: App, at: int, before: bool) -> None:
        super().__init__(app.broker)
        self.left, self._before = at, before

    def publish(self, envelopes: Sequence[Envelope], until: float, rider: Rider | None = None) -> bool:
        self._fail(self._before)
        made = super().publish(envelopes, until, rider)
        self._fail(not self._before, count=0)
        return made

    def replace(self, id: str, envelope: Envelope, now: float, until: float) -> bool:
        self._fail(self._before)
        made = super().replace(id, envelope, now, until)
        self._fail(not self._before, count=0)
        return made

    def _fail(self, wanted: bool, count: int = 1) -> None:
        self.left -= count
        if self.left == 0 and wanted:
            self.left -= 1
            raise BrokerUnreachable("as asked", stored="unknown")


ACTS: dict[str, Callable[[App, Handle[Any]], object]] = {
    "submit": lambda app, first: app.jobs["note"].options(unique="k").submit("b"),
    "replace": lambda app, first: app.jobs["note"].options(unique=Unique("k", conflict="replace")).submit("b"),
    "revoke": lambda app, first: first.revoke(),
    "delete": lambda app, first: Control(app).delete(first.id),
    "bury": lambda app, first: Control(app).bury(first.id),
    "kick": lambda app, first: Control(app).kick(ids=[first.id]),
    "kick one that held its key": lambda app, first: Control(app).kick(ids=[first.id]),
    "delete one that held its key": lambda app, first: Control(app).delete(first.id),
}


@pytest.mark.parametrize("before", [True, False], ids=["not made", "made"])
@pytest.mark.parametrize("where", ["store", "publisher", "publisher, keys riding"])
@pytest.mark.parametrize("free", [True, False], ids=["free", "held"])
@pytest.mark.parametrize("act", ACTS)
def test_wherever_an_act_breaks_off_the_next_submit_gets_a_job_that_is_there(
    act: str, free: bool, where: str, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kq.handles.lock.IN_DOUBT", 0.05)
    for at in range(1, 30):
        app = new_app()
        gone = act.endswith("held its key")
        only = app.jobs["note"].options(unique=Unique("k", until="gone" if gone else "end"))
        first = only.submit("a")
        if act.startswith("kick") or gone:
            with Control(app) as control:
                control.bury(first.id)
        elif free and act in ("submit", "replace"):
            assert first.revoke()
        flaky = app.apart()
        store = FlakyStore(app.store, at if where == "store" else 0, before, where.endswith("riding"))
        publisher = FlakyPublisher(app, 0 if where == "store" else at, before)
        flaky.connect(publisher, store)
        flaky._submit_timeout = 0.1
        broke = False
        try:
            ACTS[act](bound(flaky), Handle(first.id, "unique", flaky))
        except (KqError, StoreUnreachable):
            broke = True
        until = time.monotonic() + 5
        while (handle := submitted(only)) is None:
            assert time.monotonic() < until, f"the key is stuck when call {at} of {act} fails"
        with Control(app) as control:
            there = [job.id for job in control.jobs("unique") if gone or job.state is not State.BURIED]
        assert there == [handle.id], f"call {at} of {act} failed"
        assert app.store.get([unique_key("k")]) == [handle.id.encode()]
        app.close()
        if not broke and max(store.left, publisher.left) > 0:
            return
    raise AssertionError(f"{act} makes more calls than that")


def submitted(only: kq.JobType[..., Any]) -> Handle[Any] | None:
    try:
        return only.submit("c")
    except BrokerUnreachable:
        return None


def bound(app: App) -> App:
    """app, with job types that submit through it."""
    app.jobs = {name: replaced(job_type, app) for name, job_type in app.jobs.items()}
    return app


def replaced(job_type: kq.JobType[..., Any], app: App) -> kq.JobType[..., Any]:
    other = job_type.options()
    other.app = app
    return other
