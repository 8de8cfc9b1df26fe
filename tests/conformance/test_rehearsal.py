"""A rehearsal tells what a job would do and how it would end, and leaves everything as it was, on every broker."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kq import mail
from kq.app import App
from kq.broker import BURIED
from kq.clock import new_id
from kq.conformance.contract.mailserver import MailServer
from kq.conformance.contract.world import ContractWorld
from kq.control import Control
from kq.effects.context import CurrentJob, current_job
from kq.effects.ledger import Due, Entry, Ledger
from kq.effects.observer import Execution, Observer
from kq.handles.handle import Handle
from kq.state.store import Write
from kq.values.deed import Deed
from kq.values.message import Envelope, decode_head, encode_head
from kq.values.outcome import Bury, Complete, Died, Done, FallBack, Raised, Retry, TimedOut
from kq.values.policy import Fixed
from kq.values.record import lease_key, worker_key
from kq.worker.rehearsal import Played, Rehearsal
from tests.brokers import OnMemory, OnRabbit, OnRedis, OnSqlite

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def here() -> CurrentJob:
    job = current_job()
    assert job is not None
    return job


class Rehearsing(ContractWorld):
    """deeds: what was told."""

    @pytest.fixture
    def deeds(self) -> list[Deed]:
        return []

    @pytest.fixture
    def rehearse(self, app: App, control: Control, deeds: list[Deed]) -> Iterator[Callable[..., Played]]:
        """Rehearses a job, and asserts that nothing is changed by that, but for a line of the audit."""

        def everything() -> tuple[Any, Any]:
            facts = dict(app.store.scan("", 10_000))
            messages = [
                (queue, state, seen.id, seen.body, dict(seen.headers), seen.priority, seen.stamp)
                for queue in control.queue_names()
                for place in (queue, queue + BURIED)
                for state in ("ready", "delayed")
                for seen in inspector.browse(place, state, 1000)
            ]
            beats = worker_key("")
            return {key: value for key, value in facts.items() if not key.startswith((beats, "audit:"))}, messages

        def rehearse(handle: Handle[Any], max_rss: int = 0) -> Played:
            before, acts = everything(), len(control.audit())
            with Rehearsal(app, max_rss) as rehearsal:
                played = rehearsal.play(
                    control.rehearsing(handle.id), deeds.append, lambda far: None, lambda *stand: None
                )
            assert everything() == before
            (act,) = control.audit()[: len(control.audit()) - acts]
            assert (act.act, act.job) == ("rehearsed", handle.id)
            return played

        inspector = app.inspector()
        try:
            yield rehearse
        finally:
            inspector.close()

    def test_what_a_buried_job_would_do_is_told_and_not_done(
        self, app: App, queue: str, control: Control, rehearse: Callable[..., Played], deeds: list[Deed], tmp_path: Path
    ) -> None:
        with MailServer() as server:
            post = mail.mailer(app, server.url, sender="shop@example.org", queue=f"{queue}-sole")

            @app.effect(name="charge", key=lambda order: f"charge {order}", queue=queue)
            def charge(order: int) -> str:
                (tmp_path / "charged").touch()
                return "paid"

            @app.job(name="ship")
            def ship(order: int) -> list[Any]:
                assert here().rehearsal
                with here().once(f"label {order}") as effect:
                    if effect.due:
                        (tmp_path / "label").touch()
                sent = post(["ann@example.org"], "token=abc", "body")
                charge.submit(order)
                app.later(charge.job(order + 1), hold=60)
                return [charge(order), effect.outcome, sent]

            job = ship.submit(7)
            control.bury(job.id)
            played = rehearse(job)
            assert isinstance(played.verdict, Complete)
            assert played.outcome == Done(b'[null,null,{"ann@example.org":"would be sent"}]', played.verdict.staged)
            assert not server.accepted
        assert not list(tmp_path.glob("label")) + list(tmp_path.glob("charged"))
        label, letter, submitted, charged, staged = deeds
        assert (label.kind, label.key, charged.key) == ("effect", "label 7", "charge:charge 7")
        assert (letter.kind, letter.to, letter.subject) == ("mail", "ann@example.org", "token=***")
        assert (submitted.kind, submitted.call, submitted.queue) == ("submit", "charge(7)", queue)
        assert (staged.kind, staged.call, staged.delay) == ("later", "charge(8)", 60.0)

    def test_what_stands_in_the_ledger_as_done_is_told_as_that(
        self, app: App, rehearse: Callable[..., Played], deeds: list[Deed]
    ) -> None:
        app.store.write([Write(lease_key("w"), b"1", 60.0)])
        ledger, mine = Ledger(app.store), Entry("charge:7", "intended", "charge", "earlier", 1, "w")
        found = ledger.intend(mine)
        assert isinstance(found, Due)
        ledger.done(found.mine, b'"paid"')

        @app.effect(name="charge", key=lambda order: str(order))
        def charge(order: int) -> str:
            return "again"

        assert rehearse(charge.submit(7)).outcome == Done(b'"paid"')
        assert [(deed.key, deed.before) for deed in deeds] == [("charge:7", "earlier")]

    def test_a_doubt_is_met_as_in_a_worker_and_stays(self, app: App, rehearse: Callable[..., Played]) -> None:
        ledger, mine = Ledger(app.store), Entry("charge:7", "intended", "charge", "earlier", 1, "gone")
        app.store.write([Write(lease_key("gone"), b"1", 60.0)])
        assert isinstance(ledger.intend(mine), Due)
        app.store.write([Write(lease_key("gone"), None)])

        @app.effect(name="charge", key=lambda order: str(order))
        def charge(order: int) -> str:
            return "again"

        outcome = rehearse(charge.submit(7)).outcome
        assert isinstance(outcome, Raised)
        assert outcome.failure.name == "kq.errors.InDoubt"

    def test_coroutines_are_rehearsed_too(self, app: App, rehearse: Callable[..., Played], deeds: list[Deed]) -> None:
        @app.job(name="ship")
        async def ship(order: int) -> str:
            async with here().once("label") as effect:
                assert not effect.due
            assert here().emit({"order": order})
            await ship.submit_async(order + 1)
            await asyncio.sleep(0)
            return "shipped"

        assert rehearse(ship.submit(7)).outcome == Done(b'"shipped"')
        assert [str(deed) for deed in deeds][:2] == ["would do label", 'would emit {"order":7}']
        assert str(deeds[2]).startswith("would submit ship(8) to ")

    def test_how_a_job_would_end_is_told(self, app: App, rehearse: Callable[..., Played], deeds: list[Deed]) -> None:
        @app.job(name="fall", fallback=["other"], timeout=0.3)
        def fall(how: str) -> None:
            with here().once("label"):
                pass
            if how == "raise":
                raise ValueError("no date")
            if how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            while how == "hang":
                time.sleep(60)
            while True:
                try:
                    time.sleep(60)
                except BaseException:  # it refuses to end
                    continue

        expected: dict[str, tuple[type, type]] = {
            "raise": (Raised, FallBack),
            "die": (Died, Retry),
            "hang": (TimedOut, FallBack),
            "refuse": (TimedOut, FallBack),
        }
        for how, kinds in expected.items():
            played = rehearse(fall.submit(how))
            assert (type(played.outcome), type(played.verdict)) == kinds, how
            if isinstance(played.outcome, Raised):
                assert "no date" in played.outcome.failure.traceback
            if isinstance(played.outcome, TimedOut):
                assert played.outcome.killed == (how == "refuse")
        assert len(deeds) == 4  # also of those that died

    def test_who_observes_the_app_is_not_told_of_a_rehearsal(
        self, app: App, rehearse: Callable[..., Played], tmp_path: Path
    ) -> None:
        class Observes(Observer):
            @contextmanager
            def submitting(self, jobs: Sequence[Envelope]) -> Iterator[None]:
                (tmp_path / "submitting").touch()
                yield

            @contextmanager
            def running(self, execution: Execution) -> Iterator[None]:
                (tmp_path / "running").touch()
                yield

        other = app.job(name="other")(lambda: None)
        job = app.job(name="asks")(lambda: other.submit().id).submit()
        app.observe(Observes())
        assert isinstance(rehearse(job).outcome, Done)
        assert [path.name for path in tmp_path.iterdir() if path.name in ("submitting", "running")] == []

    def test_attempts_count_as_they_did_until_the_job_is_buried_and_kicked(
        self, app: App, control: Control, queue: str, rehearse: Callable[..., Played]
    ) -> None:
        def fail() -> None:
            raise OSError("no paint")

        first = app.job(name="fail", retry_policy=Fixed(delay=1, retries=1))(fail).submit()
        seen = control.rehearsing(first.id)
        head = replace(decode_head(seen.headers), id=new_id(), failed=1)
        app.publisher.publish([Envelope(head.id, queue, seen.body, encode_head(head))], time.monotonic() + 10)
        last = Handle[Any](head.id, queue, app)
        assert isinstance(rehearse(last).verdict, Bury)
        assert isinstance(rehearse(first).verdict, Retry)
        control.bury(last.id)
        assert isinstance(rehearse(last).verdict, Retry)

    def test_a_job_that_gives_orders_or_waits_for_what_was_not_submitted_is_told_so(
        self, app: App, rehearse: Callable[..., Played]
    ) -> None:
        other = app.job(name="other")(lambda: None)
        waits = other.submit()

        @app.job(name="order")
        def order(what: str) -> None:
            if what == "result":
                other.submit().result()
            if what == "revoke":
                waits.revoke()
            with Control(app) as control:
                if what == "bury":
                    control.bury(waits.id)
                if what == "expel":
                    control.expel("w")
                if what == "pause":
                    control.pause(app.defaults.queue or "")

        assert "was not submitted" in self.why(rehearse(order.submit("result")))
        # In its own process it sees no job of a broker that lives in this one.
        for what in ("expel", "pause", *["revoke", "bury"] * app.broker.traits.shared):
            assert "nothing is changed" in self.why(rehearse(order.submit(what))), what

    def why(self, played: Played) -> str:
        """Why a job failed."""
        assert isinstance(played.outcome, Raised)
        return played.outcome.failure.message

    def test_what_the_job_started_ends_with_the_rehearsal(self, app: App, rehearse: Callable[..., Played]) -> None:
        @app.job(name="start")
        def start() -> int:
            code = "import time; time.sleep(600)"
            return subprocess.Popen([sys.executable, "-c", code], start_new_session=True).pid

        outcome = rehearse(start.submit()).outcome
        assert isinstance(outcome, Done)
        with pytest.raises(ProcessLookupError):
            os.kill(int(outcome.value), 0)

    def test_one_that_takes_too_much_memory_would_be_retried(self, app: App, rehearse: Callable[..., Played]) -> None:
        @app.job(name="grow", max_lost=1)
        def grow() -> None:
            kept = b"x" * (1 << 28)
            while kept:
                time.sleep(60)

        verdict = rehearse(grow.submit(), max_rss=1 << 28).verdict
        assert isinstance(verdict, Bury)
        assert verdict.how == "out of memory"


class TestRehearsalInMemory(OnMemory, Rehearsing):
    pass


class TestRehearsalOnSqlite(OnSqlite, Rehearsing):
    pass


class TestRehearsalOnRedis(OnRedis, Rehearsing):
    pass


class TestRehearsalOnRabbit(OnRabbit, Rehearsing):
    pass
