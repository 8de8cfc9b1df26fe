"""The ledger of side effects, on each kind of store: what a job finds, and what it may say."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import time
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Any

import pytest

from kq.app import App
from kq.conformance.between import Between
from kq.conformance.contract.waiting import eventually
from kq.effects.context import CurrentJob, Footing
from kq.effects.ledger import Ledger
from kq.effects.once import Once, OnDoubt
from kq.errors import EffectBusy, InDoubt, LeaseLost, NotDone
from kq.mail import mailer
from kq.state import Store
from kq.state.store import StoreUnreachable, Write
from kq.values.record import begun_key, lease_key

_fresh = itertools.count()


class EffectWorld:
    """A store, and workers whose leases hold until they are ended."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def world(self, url: str) -> None:
        self.app = App("ledger", url)
        self.store: Store = self.app.store
        self.prefix = f"test-{next(_fresh)}-{id(self)}"
        self.ledger = Ledger(self.store)
        self.lapse: Callable[[], float] = lambda: inf
        for worker in ("w1", "w2"):
            self.store.write([Write(lease_key(self.prefix + worker), b"1", 60.0)])

    def die(self, worker: str) -> None:
        self.store.write([Write(lease_key(self.prefix + worker), None)])

    def once(
        self, job: str = "a", attempt: int = 1, worker: str = "w1", on_doubt: OnDoubt = "bury", **how: object
    ) -> Once:
        footing = Footing(self.app, self.prefix + worker, lapse=lambda: self.lapse())
        running = CurrentJob(job, "post", "mail", attempt, float("inf"), footing)
        return running.once(self.key, on_doubt=on_doubt, **how)  # type: ignore[arg-type]

    @property
    def key(self) -> str:
        return f"{self.prefix}:invoice 7"

    def begin(self, **how: object) -> None:
        """Begin the effect as somebody who never comes back."""
        assert self.once(**how).__enter__().due  # type: ignore[arg-type]


class LedgerSuite(EffectWorld):
    def test_an_effect_that_was_done_is_not_due_again_and_tells_its_outcome(self) -> None:
        with self.once() as effect:
            assert effect.due
            effect.done({"number": 7})
        with self.once("b", worker="w2") as again:
            assert (again.due, again.outcome) == (False, {"number": 7})

    def test_a_block_that_ends_without_a_word_is_done(self) -> None:
        with self.once():
            pass
        with self.once("b") as again:
            assert (again.due, again.outcome) == (False, None)

    def test_another_job_waits_while_one_is_at_it(self) -> None:
        self.begin()
        with pytest.raises(EffectBusy, match="job a is at the effect"):
            self.once("b", worker="w2").__enter__()

    def test_who_finds_the_intention_of_a_dead_worker_is_in_doubt(self) -> None:
        self.begin()
        self.die("w1")
        with pytest.raises(InDoubt, match="ended without a word"):
            self.once("b", worker="w2").__enter__()

    def test_the_next_attempt_of_the_same_job_is_in_doubt_although_its_worker_lives(self) -> None:
        self.begin()
        with pytest.raises(InDoubt):
            self.once(attempt=2).__enter__()

    def test_a_doubt_stays_one_until_somebody_decides(self) -> None:
        self.begin()
        for _ in range(2):
            with pytest.raises(InDoubt):
                self.once(attempt=2).__enter__()
        entry = self.ledger.find(self.key)
        assert entry is not None
        assert (entry.stage, entry.job) == ("doubt", "a")
        assert self.ledger.decide(entry, b'"by hand"', "ann: seen in the outbox")
        with self.once(attempt=3) as effect:
            assert (effect.due, effect.outcome) == (False, "by hand")

    def test_what_a_human_lifts_may_happen_again(self) -> None:
        with self.once():
            pass
        entry = self.ledger.find(self.key)
        assert entry is not None
        assert self.ledger.lift(entry)
        assert not self.ledger.lift(entry)
        with self.once("b") as effect:
            assert effect.due

    def test_repeat_does_it_again_and_skip_takes_it_for_done(self) -> None:
        self.begin(on_doubt="repeat")
        with self.once(attempt=2, on_doubt="skip") as effect:
            assert not effect.due
        entry = self.ledger.find(self.key)
        assert entry is not None
        assert self.ledger.lift(entry)
        self.begin()
        with self.once(attempt=2, on_doubt="repeat") as effect:
            assert effect.due

    @pytest.mark.parametrize(("answer", "due"), [(True, False), (False, True)])
    def test_a_check_ends_the_doubt(self, answer: bool, due: bool) -> None:
        self.begin()
        with self.once(attempt=2, check=lambda: answer) as effect:
            assert effect.due is due

    def test_a_check_that_cannot_tell_leaves_it_to_the_rule(self) -> None:
        self.begin()
        with pytest.raises(InDoubt):
            self.once(attempt=2, check=lambda: None).__enter__()

    def test_an_error_leaves_a_doubt(self) -> None:
        with pytest.raises(InDoubt, match="broke off with ValueError: half way"), self.once():
            raise ValueError("half way")
        with pytest.raises(InDoubt):
            self.once(attempt=2).__enter__()

    def test_an_error_that_says_that_nothing_happened_leaves_none(self) -> None:
        with pytest.raises(NotDone), self.once():
            raise NotDone("the door was shut")
        with self.once(attempt=2) as effect:
            assert effect.due

    def test_a_refused_connection_alone_proves_nothing(self) -> None:
        with pytest.raises(InDoubt), self.once():
            raise ConnectionRefusedError("the second of two doors was shut")

    def test_what_came_of_it_has_no_json_form_but_it_happened(self) -> None:
        with pytest.raises(TypeError), self.once() as effect:
            effect.done(object())
        with self.once(attempt=2) as again:
            assert (again.due, again.outcome) == (False, None)

    def test_the_same_effect_inside_itself_is_a_doubt(self) -> None:
        with pytest.raises(LeaseLost, match="somebody else decides"), self.once(), pytest.raises(InDoubt):
            self.once().__enter__()
        assert [entry.key for entry in self.ledger.doubts("a")] == [self.key]

    def test_who_asks_first_begins_nothing(self) -> None:
        assert not self.once().was_done()
        assert self.ledger.find(self.key) is None
        with self.once():
            pass
        asked = self.once("b")
        assert asked.was_done()
        assert asked.before is not None
        assert asked.before.job == "a"

    def test_doubts_are_found_by_job_until_they_are_answered(self) -> None:
        with self.once():
            pass
        self.prefix, done = f"{self.prefix}-doubtful", self.key
        for worker in ("w1", "w2"):
            self.store.write([Write(lease_key(self.prefix + worker), b"1", 60.0)])
        self.begin()
        for job in ("a", "b"):
            self.die("w1")
            with pytest.raises(InDoubt, match=f"kq jobs kick {job} --done"):
                self.once(job, attempt=2, worker="w2").__enter__()
        assert [entry.key for entry in self.ledger.doubts("a")] == [self.key]
        (doubt,) = self.ledger.doubts("b")
        assert (doubt.job, doubt.attempt, doubt.worker) == ("a", 1, self.prefix + "w1")
        assert done not in [entry.key for entry in self.ledger.doubts()]
        assert self.ledger.decide(doubt, b"null", "ann: it is there")
        assert self.ledger.doubts("a") == self.ledger.doubts("b") == []

    def test_a_doubt_that_a_check_ends_is_on_no_list(self) -> None:
        self.begin()
        for job in ("a", "b"):
            self.die("w1")
            with pytest.raises(InDoubt):
                self.once(job, attempt=2, worker="w2").__enter__()
        with self.once(attempt=3, worker="w2", check=lambda: False) as effect:
            assert effect.due
        assert self.ledger.doubts("a") == []
        assert self.store.scan("doubt:a:") == self.store.scan("doubt:b:") == []

    def test_the_doubt_is_written_down_before_the_check_is_asked(self) -> None:
        self.begin()

        def check() -> bool:
            assert [entry.key for entry in self.ledger.doubts("a")] == [self.key]
            raise ConnectionError("the bank does not answer")

        with pytest.raises(ConnectionError):
            self.once(attempt=2, check=check).__enter__()

    def test_what_is_done_is_forgotten_in_time_and_what_is_open_is_not(self) -> None:
        self.begin(keep=0.05)
        begun = self.key
        self.prefix += "-done"
        self.store.write([Write(lease_key(self.prefix + "w1"), b"1", 60.0)])
        with self.once(keep=0.05):
            pass
        eventually(lambda: self.ledger.find(self.key) is None, "what is done is forgotten")
        assert self.ledger.find(begun) is not None

    def test_who_slept_past_its_lease_begins_nothing_although_its_words_were_heard(self) -> None:
        self.lapse = lambda: time.monotonic() - 0.001
        with pytest.raises(LeaseLost, match="slept"):
            self.once().__enter__()
        assert self.ledger.find(self.key) is None

    def test_a_store_that_loses_answers_leaves_no_doubt(self) -> None:
        store = Forgetful(self.store)
        self.app.connect(self.app.publisher, store)
        with self.once() as effect:
            assert effect.due
            effect.done("sent")
        assert store.lost == 2
        with self.once("b") as again:
            assert (again.due, again.outcome) == (False, "sent")

    def test_a_coroutine_asks_the_ledger_without_holding_up_others(self) -> None:
        async def act() -> bool:
            async with self.once() as effect:
                return effect.due

        assert asyncio.run(act())
        assert not asyncio.run(act())

    def test_a_worker_whose_lease_is_over_begins_nothing(self) -> None:
        self.die("w1")
        with pytest.raises(LeaseLost):
            self.once().__enter__()
        assert self.ledger.find(self.key) is None

    def test_a_worker_whose_lease_is_over_is_not_believed(self) -> None:
        effect = self.once().__enter__()
        self.die("w1")
        with pytest.raises(LeaseLost):
            effect.done("sent")
        entry = self.ledger.find(self.key)
        assert entry is not None
        assert entry.stage == "intended"

    def test_entries_are_listed_by_key(self) -> None:
        with self.once():
            pass
        assert [entry.key for entry in self.ledger.entries(self.prefix)] == [self.key]

    def test_what_a_job_has_begun_is_found_at_once_beside_what_all_others_have(self) -> None:
        for batch in range(20):
            jobs = [f"{self.prefix}-{batch}-{number}" for number in range(1000)]
            self.store.write([Write(begun_key(job, "other"), b"{}", 60.0) for job in jobs])
        with self.once("a"):
            pass
        took = []
        for _ in range(5):
            began = time.perf_counter()
            assert [entry.key for entry in self.ledger.begun("a")] == [self.key]
            took.append(time.perf_counter() - began)
        assert min(took) < 0.03

    def test_a_long_key_is_found_too(self) -> None:
        self.prefix += "x" * 500
        for worker in ("w1", "w2"):
            self.store.write([Write(lease_key(self.prefix + worker), b"1", 60.0)])
        with self.once():
            pass
        with self.once("b") as again:
            assert not again.due


class Forgetful(Between):
    """A store that does each write of an effect, and loses the answer the first time."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._seen = set[Write]()
        self.lost = 0

    def write(self, writes: Sequence[Write]) -> list[bool]:
        made = super().write(writes)
        if writes[0].key.startswith("effect:") and writes[0] not in self._seen:
            self._seen.add(writes[0])
            self.lost += 1
            raise StoreUnreachable("the answer was lost")
        return made


def test_an_effect_without_terms_is_one_as_well() -> None:
    app = App("terms", "memory://terms")

    @app.effect
    def deed(number: int) -> int:
        return number

    assert app.jobs[deed.name] is deed
    assert inspect.unwrap(deed.function) is not deed.function  # in a worker it asks the ledger first
    assert deed(3) == 3


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"keep": 0.0}, "remembered for 0"),
        ({"keep": -1.0}, "remembered for -1"),
        ({"keep": inf}, "remembered for inf"),
        ({"keep": float("nan")}, "remembered for nan"),
        ({"on_doubt": "shrug"}, "use one of bury, fallback"),
    ],
)
def test_terms_that_mean_nothing_are_refused_where_they_are_written(terms: dict[str, Any], said: str) -> None:
    app = App("terms", "memory://terms")
    running = CurrentJob("a", "post", "mail", 1, inf, Footing(app, "w"))
    with pytest.raises(ValueError, match=said):
        running.once("key", **terms)
    if "keep" in terms:
        terms = {"remember": terms["keep"]}
    with pytest.raises(ValueError, match=said):
        app.effect(name="deed", **terms)(lambda: None)
    with pytest.raises(ValueError, match=said):
        mailer(app, "log:", sender="a@example.org", **terms)
    with pytest.raises(ValueError, match="key of a side effect is empty"):
        running.once("")


class TestLedgerInMemory(LedgerSuite):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"memory://{tmp_path.name}"


class TestLedgerOnSqlite(LedgerSuite):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'state.db'}"


class TestLedgerOnRedis(LedgerSuite):
    @pytest.fixture
    def url(self, redis_url: str) -> str:
        return redis_url
