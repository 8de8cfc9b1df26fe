"""Metrics: what Prometheus' own parser reads in the text that is written."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kq.values import metrics
from kq.values.snapshot import History, Paused, QueueRow, RunningRow, SingletonRow, Snapshot, WorkerRow
from kq.values.tally import Spread, Tally, Wait, Work


def read(told: Any) -> dict[str, dict[tuple[str, ...], float]]:
    """The numbers by sample name and values of labels, in the order of their names."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(metrics.text(told)):
        for sample in family.samples:
            labels = tuple(sample.labels[name] for name in sorted(sample.labels))
            assert labels not in found.setdefault(sample.name, {}), "a number is told twice"
            found[sample.name][labels] = sample.value
    return found


def work(queue: str = "mail", type: str = "send", **counts: Any) -> Work:
    return Work(queue, type, **counts)


def test_a_worker_tells_what_became_of_jobs_by_queue_and_type() -> None:
    told = read(metrics.of_worker(Tally("w", 2.0, 1.0, [work(started=7, completed=3, failed=2, buried=1, fell=1)])))
    ended = {outcome: number for (outcome, _, _), number in told["kq_jobs_total"].items() if number}
    assert ended == {"ok": 3, "failed": 2, "buried": 1, "fell_back": 1}
    assert told["kq_jobs_started_total"] == {("mail", "send"): 7}


def test_side_effects_are_told_of_types_that_have_any() -> None:
    kinds = [work(done=2, unknown=1), work(type="add", completed=1)]
    told = read(metrics.of_worker(Tally("w", 2.0, 1.0, kinds, reconnects=3)))
    effects = {result: number for (_, result, type), number in told["kq_side_effects_total"].items() if type == "send"}
    assert effects == {"done": 2, "duplicate": 0, "unknown": 1}
    assert len(told["kq_side_effects_total"]) == 3
    assert told["kq_broker_reconnects_total"] == {(): 3}


def spread(*seconds: float) -> Spread:
    made = Spread()
    for each in seconds:
        made.add(each)
    return made


def test_histograms_count_upwards_and_end_with_all() -> None:
    told = read(metrics.of_worker(Tally("w", 2.0, 1.0, [work(ran=spread(0.02, 0.02, 3.0, 1e6))])))
    buckets = {labels[0]: number for labels, number in told["kq_job_duration_seconds_bucket"].items()}
    assert (buckets["0.01"], buckets["0.025"], buckets["5"], buckets["+Inf"]) == (0, 2, 3, 4)
    assert list(buckets.values()) == sorted(buckets.values())
    assert told["kq_job_duration_seconds_count"] == {("mail", "send"): 4}
    assert told["kq_job_duration_seconds_sum"]["mail", "send"] == pytest.approx(1e6 + 3.04)


def test_submits_that_found_their_key_held_are_told_by_what_becomes_of_such() -> None:
    rows = (QueueRow(name="mail", duplicates={"join": 3, "reject": 1}), QueueRow(name="bulk"))
    told = read(metrics.of_all(Snapshot(at=1.0, queues=rows), Spread()))
    assert told["kq_duplicate_submits_total"] == {("join", "mail"): 3, ("reject", "mail"): 1}


def test_waits_are_told_by_queue_and_priority() -> None:
    waits = [Wait("mail", 9, spread(0.02)), Wait("mail", 0, spread(40.0, 50.0)), Wait("bulk", 0, spread(1.0))]
    told = read(metrics.of_worker(Tally("w", 2.0, 1.0, [work()], waits=waits)))
    assert told["kq_job_wait_seconds_count"] == {("9", "mail"): 1, ("0", "mail"): 2, ("0", "bulk"): 1}
    assert told["kq_job_wait_seconds_sum"]["0", "mail"] == 90.0


def test_queues_without_end_become_one_other_of_those_that_wait() -> None:
    waits = [Wait(f"q{number}", 0, spread(1.0)) for number in range(metrics.SERIES + 3)]
    told = read(metrics.of_worker(Tally("w", 2.0, 1.0, [], waits=waits)))["kq_job_wait_seconds_count"]
    assert (len(told), told["other", "other"]) == (metrics.SERIES + 1, 3)


def test_job_types_without_end_become_one_other() -> None:
    many = [work(type=f"t{number}", completed=1, started=1) for number in range(metrics.SERIES + 50)]
    told = read(metrics.of_worker(Tally("w", 2.0, 1.0, many)))["kq_jobs_started_total"]
    assert len(told) == metrics.SERIES + 1
    assert told["other", "other"] == 50
    assert sum(told.values()) == metrics.SERIES + 50


def test_names_may_have_anything_in_them() -> None:
    strange = 'a "b"\\c\nd'
    told = read(metrics.of_worker(Tally("w", 2.0, 1.0, [work(queue=strange, started=1)])))
    assert told["kq_jobs_started_total"] == {(strange, "send"): 1}


SHOT = Snapshot(
    at=0.0,
    transport="redis",
    round_trip=0.002,
    doubtful=2,
    queues=(
        QueueRow(name="mail", ready=3, buried=1, oldest=12.5, came=0.5, workers=1, paused=Paused(what="mail", at=0.0)),
        QueueRow(name="bulk", oldest=None, retrying=None, drain=None),
    ),
    workers=(
        WorkerRow(
            name="w",
            state="alive",
            beat_age=1.5,
            lease=15.0,
            lease_left=13.5,
            slots=4,
            running=(RunningRow(id="1", type="t", queue="mail", seconds=1.0),),
        ),
        WorkerRow(name="gone", state="dead", beat_age=60.0, lease=15.0, lease_left=0.0, slots=4),
    ),
    singletons=(SingletonRow(queue="mail", holder="w"), SingletonRow(queue="pay")),
    history=History(sent={"mail": 7, "bulk": 0}),
)


def test_all_queues_and_workers_are_told_as_gauges() -> None:
    told = read(metrics.of_all(SHOT, spread(0.002, 0.4)))
    assert told["kq_queue_jobs"]["mail", "ready"] == 3
    assert told["kq_queue_oldest_seconds"] == {("mail",): 12.5}
    assert told["kq_queue_arrival_rate"] == {("mail",): 0.5}
    assert told["kq_jobs_sent_total"] == {("mail",): 7, ("bulk",): 0}
    assert told["kq_queue_paused"] == {("mail",): 1, ("bulk",): 0}
    assert told["kq_queue_workers"] == {("mail",): 1, ("bulk",): 0}
    assert told["kq_workers"] == {("alive",): 1, ("late",): 0, ("stopping",): 0, ("dead",): 1}
    assert told["kq_worker_slots"] == {("busy", "w"): 1, ("free", "w"): 3}
    assert told["kq_worker_heartbeat_age_seconds"] == {("w",): 1.5, ("gone",): 60}
    assert told["kq_singleton_leader"] == {("mail", "w"): 1, ("pay", ""): 0}
    assert told["kq_side_effects_in_doubt"] == {(): 2}
    assert told["kq_broker_up"] == {(): 1}
    assert told["kq_broker_roundtrip_seconds_count"] == {(): 2}
    assert told["kq_broker_roundtrip_seconds_bucket"]["0.0025",] == 1


def test_what_nobody_knows_is_left_out() -> None:
    told = read(metrics.of_all(Snapshot(at=0.0, broker="it does not answer"), Spread()))
    assert told["kq_broker_up"] == {(): 0}
    assert "kq_broker_roundtrip_seconds_count" not in told
    assert "kq_queue_jobs" not in told


def test_no_name_breaks_the_rules_of_prometheus() -> None:
    told = [
        *metrics.of_all(SHOT, spread(1.0)),
        *metrics.of_worker(Tally("w", 2.0, 1.0, [work()])),
        metrics.of_build("1", "redis"),
    ]
    assert len({metric.name for metric in told}) == len(told)
    for metric in told:
        assert metric.name.startswith("kq_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert not {"id", "job_id", "job", "instance"} & {name for sample in metric.samples for name in sample.labels}


def test_labels_spell_out_what_cant_be_seen() -> None:
    text = metrics.text(
        metrics.of_worker(Tally("w", 2.0, 1.0, [work("a\r\x1b[2J\u202e\u200b\U000e0041\ud800\n", 'q"\\')]))
    )
    assert all(line.isascii() and line.isprintable() for line in text.split("\n"))
    told = read(metrics.of_worker(Tally("w", 2.0, 1.0, [work("a\x1b\u200b", 'q"\\', started=1)])))
    assert told["kq_jobs_started_total"] == {("a\\x1b\\u200b", 'q"\\'): 1}
