"""The ledger of side effects, on each kind of store: what a job finds, and what it may say."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from kq.app import App
from kq.context import CurrentJob, Footing
from kq.errors import EffectBusy, InDoubt, LeaseLost, NotDone
from kq.ledger import Ledger
from kq.once import Once, OnDoubt
from kq.record import lease_key
from kq.state import Store
from kq.state.store import Write

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
        for worker in ("w1", "w2"):
            self.store.write([Write(lease_key(self.prefix + worker), b"1", 60.0)])

    def die(self, worker: str) -> None:
        self.store.write([Write(lease_key(self.prefix + worker), None)])

    def once(
        self, job: str = "a", attempt: int = 1, worker: str = "w1", on_doubt: OnDoubt = "bury", **how: object
    ) -> Once:
        footing = Footing(self.app, self.prefix + worker)
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

    @pytest.mark.parametrize("error", [NotDone("the door was shut"), ConnectionRefusedError("nobody there")])
    def test_an_error_that_proves_that_nothing_happened_leaves_none(self, error: Exception) -> None:
        with pytest.raises(type(error)), self.once():
            raise error
        with self.once(attempt=2) as effect:
            assert effect.due

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

    def test_a_long_key_is_found_too(self) -> None:
        self.prefix += "x" * 500
        for worker in ("w1", "w2"):
            self.store.write([Write(lease_key(self.prefix + worker), b"1", 60.0)])
        with self.once():
            pass
        with self.once("b") as again:
            assert not again.due


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
