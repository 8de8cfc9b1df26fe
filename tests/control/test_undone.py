"""What an act leaves behind that was refused, overtaken or cut off: nothing, or what the next one needs to know."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence

import pytest

from kq.app import App
from kq.broker import BURIED, PARKED, Inspector, Seen, Swap
from kq.broker.publisher import LOOKS
from kq.control import Control, orders
from kq.control.parking import BATCH, put_back
from kq.control.sight import WorkerInfo
from kq.errors import BrokerFull, BrokerUnreachable
from kq.handles.act import KICKED, Act, Meant, stamp_of
from kq.handles.standing import Kind, Order, give, read
from kq.state import Write
from kq.values.job import State
from kq.values.message import Envelope
from kq.values.record import Record, claim_key, decode_record, encode, job_key, lease_key, worker_key


class Broken(Inspector):
    """One that goes wrong once: at a swap that the broker refuses, and in the middle of taking something out."""

    def swap(self, queue: str, swaps: Sequence[Swap]) -> list[bool]:
        raise BrokerFull("it has no room")

    def remove(self, queue: str, ids: Sequence[str]) -> list[str]:
        super().remove(queue, ids)
        raise BrokerUnreachable("it has gone", stored="unknown")


class Away(Inspector):
    """One that is not there any more when something is to be taken out."""

    def remove(self, queue: str, ids: Sequence[str]) -> list[str]:
        raise BrokerUnreachable("it has gone", stored="no")


class Breaks(App):
    """Whose broker goes wrong while these are set."""

    broken = away = False

    def inspector(self) -> Inspector:
        if self.away:
            return Away(self.broker)
        return Broken(self.broker) if self.broken else super().inspector()


@pytest.fixture
def app() -> Iterator[Breaks]:
    app = Breaks("undone", f"memory://{uuid.uuid4().hex}")
    app.job(name="note")(print)
    yield app
    app.close()


@pytest.fixture
def control(app: App) -> Iterator[Control]:
    with Control(app) as control:
        yield control


@pytest.fixture
def broken(app: Breaks) -> Iterator[Control]:
    app.broken = True
    with Control(app) as control:
        app.broken = False
        yield control


def test_a_kick_that_is_refused_for_its_key_leaves_no_line_and_no_intention(app: App, control: Control) -> None:
    cat = app.jobs["note"].options(unique="cat")
    first = cat.submit("x")
    control.bury(first.id)
    cat.submit("y")
    (done,) = control.kick(ids=[first.id])
    assert "another job has its unique key" in done.refused
    assert [act.act for act in control.audit()] == ["buried"]
    assert not app.store.scan("meant:")


def test_an_act_that_the_broker_refuses_leaves_no_line_and_no_intention(
    app: App, control: Control, broken: Control
) -> None:
    job = app.jobs["note"].submit("x")
    control.bury(job.id)
    with pytest.raises(BrokerFull):
        broken.kick(ids=[job.id])
    assert [act.act for act in control.audit()] == ["buried"]
    assert not app.store.scan("meant:")
    assert [each.refused for each in control.kick(ids=[job.id])] == [""]


def test_the_end_of_a_job_is_kept_though_nobody_struck_out_that_it_was_to_be_kicked(app: App, control: Control) -> None:
    job = app.jobs["note"].submit("x")
    control.bury(job.id)
    inspector = app.inspector()
    (seen,) = inspector.find(job.queue + BURIED, [job.id])
    lay = decode_record(app.store.get([job_key(job.id)])[0])
    assert lay is not None
    long_ago = app.store.now() - 2 * app.lease
    meant = Meant(job.id, long_ago, Act(long_ago, "ann", KICKED, job.id), seen.queue, stamp_of(seen), lay, 0.0)
    control.kick(ids=[job.id])
    assert inspector.remove(job.queue, [job.id])
    app.store.write([meant.begun(None), Write(job_key(job.id), encode(Record(State.COMPLETED)))])
    assert control.finish_acts() == []
    assert job.state() is State.COMPLETED
    assert not app.store.scan("meant:")
    inspector.close()


def test_the_key_of_a_job_is_in_doubt_when_who_takes_it_away_is_cut_off(app: App, broken: Control) -> None:
    job = app.jobs["note"].options(unique="cat").submit("x")
    with pytest.raises(BrokerUnreachable):
        broken.revoke(job.id)
    assert app.store.get([claim_key("cat")]) != [None]


def test_a_revoke_that_did_not_reach_the_broker_leaves_no_intention_and_the_key_as_it_was(app: Breaks) -> None:
    job = app.jobs["note"].options(unique="cat").submit("x")
    app.away = True
    with pytest.raises(BrokerUnreachable):
        job.revoke()
    app.away = False
    assert not app.store.scan("meant:")
    assert app.store.get([claim_key("cat")]) == [None]
    assert job.state() is State.READY


def test_a_revoke_that_is_cut_off_leaves_its_intention_for_others_to_finish(app: Breaks) -> None:
    job = app.jobs["note"].submit("x")
    app.broken = True
    with pytest.raises(BrokerUnreachable):
        job.revoke()
    assert len(app.store.scan("meant:")) == 1


def test_a_job_behind_many_parked_ones_of_another_type_is_put_back(app: App) -> None:
    app.job(name="other")(print)
    parked, note = f"default{PARKED}", app.jobs["note"].job("x")
    jobs = [*(app.jobs["other"].job(str(each)) for each in range(BATCH + 1)), note]
    app.publisher.publish([app.envelope(job).to(parked) for job in jobs], until=time.monotonic() + 10)
    inspector = app.inspector()
    assert put_back(app, inspector, parked, {"note"}) == 1
    assert inspector.has("default", note.id)
    assert inspector.count(parked).ready == BATCH + 1
    inspector.close()


def test_what_is_paused_again_is_not_being_resumed_any_more(app: App, control: Control) -> None:
    give(app.store, Kind.RESUME_TYPE, "note", Order())
    control.pause_type("note")
    standing = read(app.store)
    assert ("note" in standing.types, "note" in standing.resumed) == (True, False)


@pytest.mark.parametrize(("moves", "replaced"), [(1, True), (LOOKS, False)])
def test_a_job_that_others_move_while_it_is_to_be_replaced_is_looked_for_again(
    app: App, monkeypatch: pytest.MonkeyPatch, moves: int, replaced: bool
) -> None:
    job, left, find = app.jobs["note"].submit("x"), [moves], Inspector.find

    def find_and_fall_behind(inspector: Inspector, queue: str, ids: Sequence[str]) -> list[Seen]:
        found = find(inspector, queue, ids)
        if left[0]:
            left[0] -= 1
            others = app.inspector()
            moved = Envelope(job.id, queue, found[0].body, {**found[0].headers, "repaired": left[0] + 1})
            assert others.swap(queue, [Swap(found[0], (moved,))]) == [True]
            others.close()
        return found

    monkeypatch.setattr(Inspector, "find", find_and_fall_behind)
    envelope = app.envelope(app.jobs["note"].job("y"))
    assert app.publisher.replace(job.id, envelope, app.store.now(), time.monotonic() + 10) is replaced
    monkeypatch.undo()
    inspector = app.inspector()
    (lies,) = inspector.find(job.queue, [job.id])
    assert (b"y" in bytes(lies.body)) is replaced
    inspector.close()


@pytest.mark.parametrize("frozen", [True, False])
def test_a_type_whose_resuming_a_worker_has_not_heard_of_is_being_resumed_still(
    app: App, control: Control, monkeypatch: pytest.MonkeyPatch, frozen: bool
) -> None:
    monkeypatch.setattr(orders, "PATIENCE", 0.1)
    if frozen:
        now = app.store.now()
        worker = WorkerInfo("frozen", "here", 1, now, now, 60.0, "process", 1, {"default": 1})
        app.store.write([Write(lease_key("frozen"), b"1"), Write(worker_key("frozen"), encode(worker))])
        assert [each.name for each in control.workers()] == ["frozen"]
    control.pause_type("note")
    control.resume_type("note")
    assert ("note" in read(app.store).resumed) is frozen
