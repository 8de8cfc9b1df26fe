"""What a snapshot says is wrong, and what to type: one piece of advice for each thing, the worst first."""

from __future__ import annotations

import shlex

from kq.errors import NO_BROKER
from kq.values.advice import Advice, advice, held
from kq.values.snapshot import FailureRow, HeldRow, Paused, QueueRow, RunningRow, Snapshot, WorkerRow
from tests.docs.test_pages import parse


def worker(name: str, *queues: str, state: str = "alive", **more: object) -> WorkerRow:
    facts = {"beat_age": 1.0, "lease": 15.0, "lease_left": 14.0, "queues": dict.fromkeys(queues, 1), **more}
    return WorkerRow(name=name, state=state, **facts)  # type: ignore[arg-type]


def told(**parts: object) -> list[Advice]:
    found = advice(Snapshot(at=0.0, **parts))  # type: ignore[arg-type]
    for each in found:
        parse(each.command)
    return found


def test_who_is_well_needs_no_advice() -> None:
    row = QueueRow(name="mail", ready=3, state="busy", workers=1)
    assert told(queues=(row,), workers=(worker("w1", "mail"),)) == []


def test_who_has_no_broker_yet_is_told_how_to_make_one() -> None:
    (only,) = told(broker=f"{NO_BROKER}: there is no file kq.db")
    assert (only.command, only.grave) == ("kq dev", True)
    assert only.what.startswith("there is no broker yet: there is no file kq.db; a worker or the first submit makes")


def test_what_is_worst_stands_first() -> None:
    queues = (
        QueueRow(name="a", ready=7, buried=2, state="growing", came=3.0, ended=1.0, slots=2, running=2),
        QueueRow(name="b", ready=2, state="paused", paused=Paused(what="b", at=0.0, by="ann@web", reason="no paper")),
        QueueRow(name="c", ready=1, state="unserved"),
    )
    commands = [each.command for each in told(queues=queues, broker="gone", doubtful=1)]
    assert commands == [
        "kq doctor",
        "kq worker -Q c",
        "kq worker -Q a",
        "kq effects ls --stage doubt",
        "kq queues resume b",
        "kq jobs ls --queue a --group",
    ]


def test_a_dead_worker_matters_most_to_queues_that_nobody_else_takes() -> None:
    dead = worker("w1", "mail", "images", state="dead", beat_age=40.0)
    (alone,) = told(workers=(dead, worker("w2", "mail")))
    assert alone.what == "worker w1 is dead: it was last heard 40s ago (lease 15s); nobody else takes images"
    assert alone.command == "kq worker -Q images"
    (covered,) = told(workers=(dead, worker("w2", "mail", "images")))
    assert covered.what.endswith("what it had goes to others")


def test_where_all_workers_are_dead_what_they_had_goes_to_nobody() -> None:
    last, first = (worker(name, "mail", state="dead", beat_age=age) for name, age in (("w1", 20.0), ("w2", 21.0)))
    assert [each.what.rpartition("; ")[2] for each in told(workers=(first, last))] == [
        "nobody else takes mail",
        "what it had waits for a worker",
    ]


def test_a_late_worker_is_to_be_asked() -> None:
    assert [each.command for each in told(workers=(worker("w1", state="late", beat_age=9.0),))] == ["kq workers ping"]


def test_a_host_whose_clock_is_off_is_named_once() -> None:
    off = [worker(name, host="web-2", skew=-300.0) for name in ("w1", "w2")]
    (clock,) = told(workers=(*off, worker("w3", host="web-1", skew=0.4), worker("w4", host="web-3")))
    assert clock.what == "the clock of web-2 and the state store's differ by 5m00s"
    assert clock.command == "kq doctor"


def test_buried_jobs_are_told_with_what_the_latest_of_them_failed_of() -> None:
    failures = (
        FailureRow(type="send", queue="mail", exception="SoftTimeout", buried=0, last=3.0),  # tried again
        FailureRow(type="send", queue="mail", exception="OSError", buried=1, last=2.0),
        FailureRow(type="send", queue="mail", exception="KeyError", buried=1, last=1.0),
    )
    (only,) = told(queues=(QueueRow(name="mail", buried=2),), failures=failures)
    assert only.what == "2 jobs of queue mail lie buried, the latest for OSError"
    (uncounted,) = told(queues=(QueueRow(name="mail", buried=1),), failures=failures[:1])
    assert uncounted.what == "1 job of queue mail lies buried"


def test_names_of_strangers_are_quoted_where_they_are_to_be_typed() -> None:
    evil = "x; rm -rf ~"
    for each in told(queues=(QueueRow(name=evil, ready=1, buried=1, state="unserved"),)):
        assert evil in shlex.split(each.command)


def test_where_other_queues_take_all_the_room_it_is_said() -> None:
    long = RunningRow(id="1", type="film", queue="films", seconds=60.0)
    busy = worker("w1", "mail", "films", slots=1, running=(long,))
    growing = QueueRow(name="mail", ready=3, state="growing", came=0.05, ended=0.0, workers=1, slots=1)
    (each,) = told(queues=(growing,), workers=(busy,))
    assert each.what.endswith(
        ": 3 jobs a minute come and 0 go, 3 jobs are ready; its workers run 1 job at once, all busy with jobs of films"
    )
    unbegun = QueueRow(name="mail", held=2, state="busy", workers=1, slots=1)
    (each,) = told(queues=(unbegun,), workers=(busy,))
    assert each.what == "2 jobs are held and have not begun: all that takes queue mail is busy with jobs of films"
    assert each.command == "kq worker -Q mail"
    assert told(queues=(unbegun,), workers=(busy, worker("w2", "mail", slots=1))) == []


def test_another_worker_is_no_help_to_a_singleton() -> None:
    row = QueueRow(name="index", ready=2, state="growing", came=2.0, workers=2, slots=2, singleton=True, holder="w1")
    (each,) = told(queues=(row,), workers=(worker("w1", "index"), worker("w2", "index")))
    assert each.what.endswith("it is a singleton queue, of which w1 runs one job at a time")
    assert each.command == "kq queues why index"


def test_the_seat_of_a_singleton_may_be_empty_at_the_moment() -> None:
    row = QueueRow(name="index", ready=2, state="growing", came=2.0, workers=1, slots=1, singleton=True)
    (each,) = told(queues=(row,), workers=(worker("w1", "index"),))
    assert each.what.endswith("it is a singleton queue, of which nobody has the seat at the moment")


def test_how_many_jobs_come_and_go_is_told_as_people_write_it() -> None:
    row = QueueRow(name="mail", ready=3, state="growing", came=1204.4, ended=119.8, workers=1, slots=1, running=1)
    (each,) = told(queues=(row,), workers=(worker("w1", "mail"),))
    assert ": 1,204 jobs a second come and 120 go, 3 jobs are ready;" in each.what


def test_of_the_workers_that_hold_jobs_the_longest_is_named_and_the_others_are_counted() -> None:
    rows = [HeldRow(worker=f"w{number}", queue="mail", jobs=2, seconds=float(number)) for number in range(1, 4)]
    assert held(QueueRow(name="mail", held=6, held_by=tuple(rows))) == "6 held by w3 for 3.0s and by 2 other workers"


def test_of_one_job_type_that_is_paused_it_is_told_how_many_jobs_wait_for_it() -> None:
    rows = (QueueRow(name="mail", parked=3000), QueueRow(name="bulk", parked=2))
    mail, note = (Paused(what=type, at=0.0, by="ann@web") for type in ("kq.mail", "shop.note"))
    (each,) = told(queues=rows, paused=(mail,))
    assert each.what == "jobs of type kq.mail are paused by ann@web; 3,002 jobs are parked"
    assert [each.what for each in told(queues=rows, paused=(mail, note))] == [
        "jobs of type kq.mail are paused by ann@web",
        "jobs of type shop.note are paused by ann@web",
    ]


def test_what_a_dead_worker_had_waits_where_nobody_else_comes() -> None:
    row = QueueRow(name="mail", ready=1, held=2, state="unserved")
    first, _ = told(queues=(row,), workers=(worker("w1", "mail", state="dead", beat_age=40.0),))
    assert first.what.endswith("w1, which took it, is dead; 1 job is ready, 2 jobs are held and have not begun")


def test_of_workers_that_died_one_after_the_other_the_last_is_told() -> None:
    dead = [worker(name, "mail", state="dead", beat_age=age, retired=1.0) for name, age in (("w1", 90.0), ("w2", 40.0))]
    (last,) = told(workers=tuple(dead))
    assert last.what.startswith("worker w2 is dead")
    assert told(workers=(*dead, worker("w3", "mail"))) == []
