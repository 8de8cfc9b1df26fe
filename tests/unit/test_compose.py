"""A snapshot is put together of facts: what each queue, worker and failure shows."""

from __future__ import annotations

from typing import Any

import pytest

from kq.broker import Load
from kq.control.compose import FAMILIES, Earlier, Facts, compose
from kq.control.sight import HeldJobs, RunningJob, WorkerInfo
from kq.handles.standing import Kind, Order, order_key
from kq.values import tally
from kq.values.record import GROUPS, HISTORY, SEAT, encode, lease_key, tally_key, worker_key
from kq.values.snapshot import FailureRow, History, Point, QueueRow, Snapshot
from kq.values.tally import Failed, Group, Spread, Tally, Work

NOW = 1000.0


def worker(name: str = "w", beat: float = NOW - 1, **more: Any) -> WorkerInfo:
    told = {"queues": {"mail": 2}, "slots": 2, "lease": 15.0, **more}
    return WorkerInfo(name=name, host="h", pid=1, started=1.0, beat=beat, pool="process", **told)


def facts(
    loads: dict[str, Load] | None = None,
    *workers: WorkerInfo,
    dead: str = "",
    tallies: tuple[Tally, ...] = (),
    earlier: Earlier = Earlier(),  # noqa: B008
    **stored: Any,
) -> Facts:
    found: dict[str, dict[str, bytes]] = {family: {} for family in FAMILIES}
    for each in workers:
        found["worker:"][worker_key(each.name)] = encode(each)
        if each.name != dead:
            found["lease:"][lease_key(each.name)] = b"1"
    for number, one in enumerate(tallies):
        found["tally:"][tally_key(str(number))] = tally.encode(one)
    for key, value in stored.get("control", {}).items():
        found["control:"][key] = value if isinstance(value, bytes) else encode(value)
    for (kind, about), order in stored.get("orders", {}).items():
        found["order:pause"][order_key(kind, about)] = encode(order)
    return Facts(NOW, loads, found, (), (), earlier)


def queue(shot: Snapshot, name: str = "mail") -> QueueRow:
    (row,) = [row for row in shot.queues if row.name == name]
    return row


def did(span: float = 10.0, at: float = NOW, **counts: Any) -> Tally:
    """A worker that did so much in the last so many seconds."""
    work = [Work("mail", "send", **counts)]
    return Tally("w", at, 0.0, work, work, span)


def test_queues_beside_a_queue_are_its_buried_and_parked_jobs() -> None:
    loads = {"mail": Load(3, 2, 1, 7.5), "mail.buried": Load(4), "mail.paused": Load(5), "kq.orders.w": Load(9)}
    (row,) = compose(facts(loads)).queues
    assert (row.name, row.ready, row.delayed, row.held, row.buried, row.parked) == ("mail", 3, 2, 1, 4, 5)
    assert row.oldest == 7.5


def test_queues_that_only_a_worker_or_the_app_knows_are_there() -> None:
    told = facts({}, worker(queues={"bulk": 1}))
    shot = compose(Facts(told.now, told.loads, told.found, ["mail"]))
    assert [row.name for row in shot.queues] == ["bulk", "mail"]


@pytest.mark.parametrize(
    ("load", "workers", "came", "state"),
    [
        (Load(0), 0, 5.0, "ok"),
        (Load(3), 0, 5.0, "unserved"),
        (Load(3), 1, 5.0, "growing"),
        (Load(3), 1, 1.0, "busy"),
        (Load(0), 1, 5.0, "ok"),
    ],
)
def test_a_queues_state_says_what_is_wrong(load: Load, workers: int, came: float, state: str) -> None:
    earlier = Earlier(NOW - 10, {"mail": round(load.ready - (came - 2.0) * 10)})
    told = facts({"mail": load}, *[worker()] * workers, tallies=(did(completed=20),), earlier=earlier)
    assert queue(compose(told)).state == state


def test_a_paused_queue_says_by_whom() -> None:
    order = Order(at=NOW - 60, by="ops@host", reason="mail server is down")
    row = queue(compose(facts({"mail": Load(3)}, worker(), orders={(Kind.PAUSE, "mail"): order})))
    assert row.state == "paused"
    assert row.paused is not None
    assert (row.paused.by, row.paused.reason, row.paused.at) == (order.by, order.reason, order.at)


def test_paused_job_types_stand_apart_from_queues() -> None:
    shot = compose(facts({"mail": Load(3)}, orders={(Kind.PAUSE_TYPE, "shop.send"): Order(by="ops")}))
    assert [row.what for row in shot.paused] == ["shop.send"]
    assert queue(shot).paused is None


def test_what_comes_is_what_went_and_what_is_more() -> None:
    told = facts({"mail": Load(50, 5, 5)}, tallies=(did(completed=20),), earlier=Earlier(NOW - 10, {"mail": 40}))
    row = queue(compose(told))
    assert (row.ended, row.came) == (2.0, 4.0)
    assert row.drain is None


def test_a_queue_is_empty_after_as_long_as_it_takes_at_this_rate() -> None:
    told = facts({"mail": Load(60)}, worker(), tallies=(did(completed=50),), earlier=Earlier(NOW - 10, {"mail": 90}))
    row = queue(compose(told))
    assert (row.ended, row.came, row.drain, row.state) == (5.0, 2.0, 20.0, "busy")


def test_one_look_alone_knows_no_rate_of_what_comes_but_control_remembers() -> None:
    loads, tallies = {"mail": Load(60)}, (did(completed=50),)
    assert queue(compose(facts(loads, tallies=tallies))).came is None
    points = tuple(Point(at=NOW - ago, jobs=jobs) for ago, jobs in ((90, 7), (50, 10), (10, 55)))
    control = {HISTORY: History(total=points, queues={"mail": points}), SEAT: b"me"}
    shot = compose(facts(loads, tallies=tallies, control=control))
    assert queue(shot).came == 5.0 + 50 / 50
    assert (shot.control, shot.history.queues["mail"], shot.missing) == ("me", points, ())


def test_rates_of_a_worker_that_went_silent_fade() -> None:
    fresh, stale = did(completed=20), did(completed=20, at=NOW - 10)
    gone = did(completed=20, at=NOW - 70)
    assert queue(compose(facts({"mail": Load()}, tallies=(fresh, stale, gone)))).ended == 2.0 + 1.0


def test_what_workers_completed_is_told_together_also_of_those_that_have_ended() -> None:
    tallies = did(completed=20), did(completed=3, at=NOW - 600)
    assert compose(facts({}, worker(), tallies=tallies)).totals.completed == 23
    assert compose(Facts(NOW, {}, None)).totals.completed is None


def test_waits_of_all_workers_make_one_quantile() -> None:
    short, long = Spread(), Spread()
    for _ in range(95):
        short.add(0.0004)
    for _ in range(15):
        long.add(45.0)
    tallies = did(started=95, waited=short), did(started=15, waited=long)
    shot = compose(facts({"mail": Load()}, tallies=tallies))
    row = queue(shot)
    assert row.wait_p95 is not None
    assert row.wait_p50 is not None
    assert row.wait_p50 < 0.001
    assert 30 <= row.wait_p95 <= 60
    assert shot.totals.wait_p95 == row.wait_p95


def test_a_worker_is_alive_late_stopping_or_dead() -> None:
    workers = [
        worker("a", NOW - 1),
        worker("b", NOW - 9),
        worker("c", NOW - 1, stopping=True),
        worker("d", NOW - 20, retired=NOW - 5),
    ]
    rows = compose(facts({}, *workers, dead="d")).workers
    assert [row.state for row in rows] == ["alive", "late", "stopping", "dead"]
    assert [row.lease_left for row in rows] == [14.0, 6.0, 14.0, 0.0]
    assert [row.retired for row in rows] == [None, None, None, NOW - 5]


def test_what_runs_has_run_on_since_the_worker_said_so() -> None:
    job = RunningJob("1", "send", "mail", NOW - 9, seconds=5.0, limit=30.0, executor=7)
    shot = compose(facts({"mail": Load(held=1)}, worker(beat=NOW - 4, running=[job])))
    (running,) = shot.workers[0].running
    assert (running.seconds, running.limit, running.executor) == (9.0, 30.0, 7)
    assert (queue(shot).running, queue(shot).workers, queue(shot).slots, shot.totals.running) == (1, 1, 2, 1)


def test_the_dead_and_those_who_end_serve_no_queue() -> None:
    shot = compose(facts({"mail": Load(1)}, worker("dead"), worker("ends", stopping=True), dead="dead"))
    assert (queue(shot).workers, queue(shot).slots, queue(shot).state) == (0, 0, "unserved")
    assert (shot.totals.workers, shot.totals.known) == (1, 2)


def test_the_latest_word_says_who_has_a_seat() -> None:
    workers = worker("old", NOW - 6, singletons=["mail"]), worker("new", NOW - 2, singletons=["mail"])
    shot = compose(facts({"mail": Load(single=True), "pay": Load(single=True), "bulk": Load()}, *workers))
    assert [(row.queue, row.holder, row.lease_left) for row in shot.singletons] == [
        ("mail", "new", 13.0),
        ("pay", "", 0.0),
    ]
    assert [(row.name, row.singleton, row.holder) for row in shot.queues] == [
        ("bulk", False, ""),
        ("mail", True, "new"),
        ("pay", True, ""),
    ]


def test_retries_are_those_delayed_jobs_that_are_not_due_yet() -> None:
    returning = {"mail": [(NOW - 1, 5), (NOW + 9, 2)]}
    told = facts({"mail": Load(delayed=3)}, tallies=(Tally("w", NOW, 0.0, returning=returning),))
    assert queue(compose(told)).retrying == 2
    fewer = facts({"mail": Load(delayed=1)}, tallies=(Tally("w", NOW, 0.0, returning=returning),))
    assert queue(compose(fewer)).retrying == 1


def test_failures_of_several_workers_and_what_lies_buried_are_one_group() -> None:
    mine = Group("mail", "send", "ValueError", "bill.py:total", "ValueError: row 7", NOW - 9, "7", 3)
    yours = Group("mail", "send", "ValueError", "bill.py:total", "ValueError: row 9", NOW - 5, "9", 2)
    lies = FailureRow(
        type="send",
        queue="mail",
        exception="ValueError",
        place="bill.py:total",
        message="ValueError: row 1",
        buried=4,
        last=NOW - 90,
        job="1",
    )
    tallies = (Tally("a", NOW, 0.0, groups=[mine]), Tally("b", NOW, 0.0, groups=[yours]))
    (row,) = compose(facts({}, tallies=tallies, control={GROUPS: [lies]})).failures
    assert (row.failed, row.buried, row.message, row.job, row.last) == (5, 4, "ValueError: row 9", "9", NOW - 5)
    (row,) = compose(facts({}, tallies=tallies)).failures
    assert row.buried is None


def test_the_latest_failures_come_first() -> None:
    a = [Failed(NOW - ago, str(ago), "send", "mail", 1, "ValueError: x", None) for ago in (9, 3)]
    b = [Failed(NOW - 5, "5", "send", "mail", 2, "OSError: y", NOW + 8)]
    recent = compose(facts({}, tallies=(Tally("a", NOW, 0.0, latest=a), Tally("b", NOW, 0.0, latest=b)))).recent
    assert [(row.id, row.worker, row.next) for row in recent] == [
        ("3", "a", None),
        ("5", "b", NOW + 8),
        ("9", "a", None),
    ]


def test_effects_in_doubt_are_shown_with_the_jobs_that_wait_for_an_answer() -> None:
    told = facts({})
    assert told.found is not None
    doubts = {"doubt:01a:9f": b"mail:ann", "doubt:01b:3c": b"mail:bob"}
    shot = compose(Facts(NOW, {}, {**told.found, "doubt:": doubts}))
    assert [(row.key, row.job) for row in shot.doubts] == [("mail:bob", "01b"), ("mail:ann", "01a")]
    assert shot.doubtful == 2


def test_the_simple_way_is_a_part_of_all() -> None:
    shot = compose(facts({"mail": Load()}, tallies=(did(completed=20, degraded=5),)))
    assert (queue(shot).degraded, shot.totals.degraded) == (0.25, 0.25)


def test_without_control_it_says_so() -> None:
    (told,) = compose(facts({"mail": Load()})).missing
    assert "control" in told


def test_without_a_state_store_what_the_broker_knows_is_there() -> None:
    shot = compose(Facts(NOW, {"mail": Load(3, 2, 1, 7.5)}, None))
    row = queue(shot)
    assert (row.ready, row.delayed, row.oldest) == (3, 2, 7.5)
    assert (row.retrying, row.ended, row.came, row.failed, row.drain) == (None,) * 5
    assert (shot.totals.ended, shot.totals.retrying) == (None, None)
    assert any("state store" in told for told in shot.missing)


def test_without_a_broker_the_workers_are_there() -> None:
    told = facts(None, worker())
    shot = compose(told)
    assert [row.name for row in shot.workers] == ["w"]
    assert queue(shot).oldest is None
    assert any("the broker does not answer" in told for told in shot.missing)


def test_who_has_what_has_not_begun_is_told_by_itself_or_is_the_only_one_that_can_have_it() -> None:
    tells = worker("tells", NOW - 4, held=[HeldJobs("mail", 2, 3.0)])
    silent = worker("silent", NOW - 6)
    both = compose(facts({"mail": Load(held=3)}, tells, silent))
    assert [(row.worker, row.jobs, row.seconds) for row in queue(both).held_by] == [("tells", 2, 7.0)]
    assert [row.held for row in both.workers] == [(), queue(both).held_by]
    alone = queue(compose(facts({"mail": Load(held=3)}, silent)))
    assert [(row.worker, row.jobs, row.seconds) for row in alone.held_by] == [("silent", 3, 6.0)]
    assert queue(compose(facts({"mail": Load(held=3)}, silent, worker("other")))).held_by == ()
    assert queue(compose(facts({"mail": Load()}, tells))).held_by == ()
    assert queue(compose(facts({"mail": Load(held=3)}, tells, dead="tells"))).held_by == ()
