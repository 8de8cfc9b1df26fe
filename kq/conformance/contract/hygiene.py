"""C19 hygiene: what can't be used is set aside with the reason, and the worker goes on."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping
from typing import Any

import psutil
import pytest

from kq.app import App
from kq.broker import BURIED, ORDERS, Inspector, declare_missing
from kq.clock import new_id
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.figures import Figures, keeps, ms, survives
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.processes import cpu
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, elapsed, in_pools, outcome, requires
from kq.control import Control
from kq.errors import JobBuried
from kq.handles.handle import Handle
from kq.state.store import Write
from kq.values.job import Job, State
from kq.values.message import BODY_LIMIT
from kq.values.record import GROUPS, HISTORY, SEAT, job_key, late_key, place_key, start_key, worker_key
from kq.worker.pool import PoolKind

MIB = 1024 * 1024
#: A body that no transport takes, and one far beyond kq's limit that each does.
HUGE, LARGE = 64 * MIB, 15 * MIB
JSON = "application/json"
GOOD: Mapping[str, Any] = {"kq": 1, "id": "g", "type": "note", "submitted": 1.0}
BODY = b'{"args": [], "kwargs": {}}'
#: Ten kB that would be ten MB.
BOMB = zlib.compress(b" " * 10_000_000)
#: Name: headers, body, content type, and a word of the reason.
GARBAGE: dict[str, tuple[Mapping[str, Any], bytes, str, str]] = {
    "bytes": (GOOD, b"\x00\xff\xfe", JSON, "JSON"),
    "nothing": (GOOD, b"", JSON, "JSON"),
    "a list": (GOOD, b"[1, 2, 3]", JSON, "JSON"),
    "a number": (GOOD, b"7", JSON, "JSON"),
    "half a body": (GOOD, b'{"args": [1', JSON, "JSON"),
    "args that are no list": (GOOD, b'{"args": "abc"}', JSON, "JSON"),
    "deep nesting": (GOOD, b"[" * 100_000, JSON, "JSON"),
    "deep arguments": (GOOD, b'{"args": [' + b"[" * 5000 + b"]" * 5000 + b"]}", JSON, "deep"),
    "an oversized body": (GOOD, b'{"args": ["' + b"x" * (BODY_LIMIT + 1) + b'"]}', JSON, "bytes"),
    "a name that stands twice": (GOOD, b'{"args": [{"to": "a", "to": "b"}]}', JSON, "'to' twice"),
    "arguments that stand twice": (GOOD, b'{"args": [], "args": [1]}', JSON, "'args' twice"),
    "a number without end": (GOOD, b'{"args": [' + b"9" * 500_000 + b"]}", JSON, "JSON"),
    "another content type": (GOOD, BODY, "application/x-python-serialize", "content type"),
    "a body that is no gzip": ({**GOOD, "compression": "application/x-gzip"}, b"\xff", JSON, "JSON"),
    "a body that would grow": ({**GOOD, "compression": "application/x-gzip"}, BOMB, JSON, "JSON"),
    "no headers": ({}, BODY, JSON, "header"),
    "a later version": ({**GOOD, "kq": 2}, BODY, JSON, "version"),
    "a version that is text": ({**GOOD, "kq": "1"}, BODY, JSON, "version"),
    "an unknown type": ({**GOOD, "type": "os.system"}, BODY, JSON, "os.system"),
    "no type": ({"kq": 1, "id": "g"}, BODY, JSON, "type"),
    "a type that is a number": ({**GOOD, "type": 7}, BODY, JSON, "header"),
    "a counter that is text": ({**GOOD, "failed": "many"}, BODY, JSON, "header"),
    "a counter below zero": ({**GOOD, "failed": -5}, BODY, JSON, "header"),
    "a timeout below zero": ({**GOOD, "timeout": -1}, BODY, JSON, "header"),
    "a policy that is none": ({**GOOD, "retry_policy": {"kind": "sometimes"}}, BODY, JSON, "polic"),
    "a fallback that is none": ({**GOOD, "fallback": "simple"}, BODY, JSON, "header"),
    "a fallback where no broker has a queue": (
        {**GOOD, "fallback": [{"type": "note", "queue": "kq.x"}]},
        BODY,
        JSON,
        "not free",
    ),
    "arguments of a fallback that are none": (GOOD, b'{"args": [], "instead": [7]}', JSON, "JSON"),
    "a history that is none": ({**GOOD, "history": [1, 2]}, BODY, JSON, "header"),
    "too many arguments": (GOOD, b'{"args": [1, 2, 3]}', JSON, "argument"),
    "an unknown argument": (GOOD, b'{"kwargs": {"colour": 1}}', JSON, "colour"),
    "an argument of the wrong type": ({**GOOD, "type": "add"}, b'{"args": ["one", 2]}', JSON, "int"),
}


def peak(process: psutil.Process) -> int:
    """The most memory that a process ever used, in resident bytes."""
    with open(f"/proc/{process.pid}/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


class Hygiene(ContractWorld):
    """C19: buried with the reason, neither dropped nor fatal."""

    @keeps("C19")
    @survives("F9")
    def test_garbage_is_buried_with_the_reason_and_the_next_job_runs_at_once(
        self,
        app: App,
        inspector: Inspector,
        control: Control,
        queue: str,
        jobs: Jobs,
        crew: Crew,
        measured: Figures,
    ) -> None:
        worker = crew.worker()
        jobs.add.submit(1, 2).result(10)
        executors = worker.executors()
        took: list[float] = []
        for number, (headers, body, content_type, _) in enumerate(GARBAGE.values()):
            id = f"garbage-{number}"
            put(app, queue, id, {**headers, "id": id} if "id" in headers else headers, body, content_type)
            began = time.monotonic()
            assert jobs.add.submit(1, 2).result(10) == 3
            took.append(elapsed(began))
        eventually(lambda: inspector.count(queue + BURIED).ready == len(GARBAGE), "all of it is buried")
        found = {seen.id: seen for seen in inspector.browse(queue + BURIED, "ready", 1000)}
        for number, (name, (_, body, _, reason)) in enumerate(GARBAGE.items()):
            seen = found[f"garbage-{number}"]
            assert reason in str(seen.headers["error"]), name
            assert seen.body == body, name
        assert {job.id for job in control.jobs(queue, State.BURIED)} == found.keys()
        assert worker.supervisor.is_running()
        assert worker.executors() == executors
        assert sorted(took)[-2] < 0.5  # one may meet a sync of the broker's disk
        measured(f"{len(GARBAGE)} kinds; the next job was done after {ms(max(took))} at most")

    @keeps("C19")
    @survives("F9")
    def test_a_body_that_is_huge_is_refused_where_it_is_published(
        self, app: App, inspector: Inspector, queue: str, jobs: Jobs, crew: Crew, measured: Figures
    ) -> None:
        crew.worker()
        jobs.add.submit(1, 2).result(10)
        body = b"x" * HUGE
        began, worked = time.monotonic(), time.thread_time()
        with pytest.raises(Exception, match="max_message_size"):
            put(app, queue, "huge", {**GOOD, "id": "huge"}, body, JSON)
        took, work = elapsed(began), time.thread_time() - worked
        assert jobs.add.submit(1, 2).result(10) == 3
        assert inspector.count(queue + BURIED).ready == 0
        measured(f"{HUGE // MIB} MiB: refused after {ms(took)}")
        assert work < 0.2  # not even copied; how long it takes else is the machine's affair

    @keeps("C19")
    @survives("F9")
    def test_a_body_of_many_megabytes_is_buried_for_its_size(
        self, app: App, inspector: Inspector, queue: str, jobs: Jobs, crew: Crew, measured: Figures
    ) -> None:
        requires(app, "shared")
        worker = crew.program()
        jobs.add.submit(1, 2).result(10)
        before, worked = peak(worker.supervisor), cpu([worker.supervisor])
        put(app, queue, "large", {**GOOD, "id": "large"}, b'{"args": [1, 2]' + b" " * LARGE + b"}", JSON)
        began = time.monotonic()
        assert jobs.add.submit(1, 2).result(10) == 3
        eventually(lambda: inspector.count(queue + BURIED).ready == 1, "it is buried")
        took, grown = elapsed(began), peak(worker.supervisor) - before
        work = cpu([worker.supervisor]) - worked
        (buried,) = inspector.browse(queue + BURIED, "ready")
        assert "bytes, more than" in buried.headers["error"]
        measured(
            f"{LARGE // MIB} MiB: the next job was done after {ms(took)}, "
            f"{ms(work)} of processor and {grown / MIB:+.0f} MiB in the worker"
        )
        assert worker.process.poll() is None
        assert work <= 0.5  # how long it takes else is the machine's affair
        assert grown <= 80 * MIB

    @keeps("C19")
    @survives("F9")
    def test_what_strangers_say_to_workers_or_write_about_jobs_ends_nobody(
        self, app: App, queue: str, control: Control, jobs: Jobs, crew: Crew
    ) -> None:
        crew.worker()
        job = jobs.add.job(1, 2)
        jobs.add.submit(1, 2).result(10)
        (name,) = [each.name for each in control.workers() if queue in each.queues]
        for token in (b"", b"\xff\xfe", b"x" * 1_000_000, b"two\nlines"):
            with app.broker.connection() as connection, connection.channel() as channel:
                channel.basic_publish(channel.prepare_message(token), exchange=ORDERS)
        orders = [f"order:{kind}:{what}" for kind in ("pause", "retire", "nonsense") for what in (queue, "ghost")]
        records = [job_key(job.id), start_key(f"{job.id}.0"), late_key(job.id), place_key(job.id), worker_key("ghost")]
        others = [SEAT, HISTORY, GROUPS, "tally:ghost", "audit:0", "effect:ghost"]
        keys = [*orders, *records, *others]
        for garbage in (b"\xff\x00", b"[" * 10_000, b"7"):
            app.store.write([Write(key, garbage, 60.0) for key in keys])
            assert name in control.ping(5.0)  # it has read them
            assert jobs.add.submit(1, 2).result(10) == 3
            for look in (control.snapshot, control.queues, control.audit, control.health, control.effects):
                look()
            assert control.job(job.id) is None
        app.store.write([Write(key, None) for key in keys])
        assert app.submit(job).result(10) == 3

    @keeps("C19")
    @in_pools("process", "thread")
    def test_orders_that_no_control_would_give_are_left_out(
        self, app: App, queue: str, control: Control, jobs: Jobs, crew: Crew, pool: PoolKind
    ) -> None:
        crew.worker(concurrency=1, pool=pool)
        assert jobs.add.submit(1, 2).result(10) == 3
        (name,) = [each.name for each in control.workers() if queue in each.queues]
        for order in (
            *({"slots": slots} for slots in (10**9, -3, 10_001, 2**63, 0.5, "many")),
            *({"more": {f"{queue}.more": limit}} for limit in (-5, 10**18, "any")),
            *({"more": {bad: 1}} for bad in ("", "a\nb", "\x00", "kq.x", "../x", "x" * 300)),
            {"less": ["\x00"]},
            {"less": [f"q{number}" for number in range(1001)]},
            {"more": {f"q{number}": 0 for number in range(1001)}},
            {"slots": 2, "reason": "x" * 100_000},
        ):
            app.store.write([Write(f"order:set:{name}", json.dumps(order).encode(), 60.0)])
            assert name in control.ping(5.0)  # it has read it
        assert jobs.add.submit(1, 2).result(10) == 3
        (worker,) = [each for each in control.workers() if each.name == name]
        assert (worker.slots, set(worker.queues)) == (1, {queue})

    @keeps("C19")
    def test_a_message_that_names_two_jobs_ends_neither(
        self, app: App, inspector: Inspector, control: Control, queue: str, jobs: Jobs, crew: Crew
    ) -> None:
        crew.worker()
        one, other = jobs.note.job("one"), jobs.note.options(delay=600).submit()
        put(app, queue, one.id, {**GOOD, "id": other.id}, BODY, JSON)
        eventually(lambda: inspector.count(queue + BURIED).ready, "it is buried")
        (seen,) = inspector.browse(queue + BURIED, "ready")
        assert "two ids" in str(seen.headers["error"])
        (shown,) = control.jobs(queue, State.BURIED)
        control.delete(shown.id)
        assert not control.jobs(queue, State.BURIED)
        assert other.state() is State.DELAYED
        assert app.submit(one).result(10) == "one"

    @keeps("C19")
    def test_a_message_without_a_message_id_runs_under_the_id_in_its_headers(
        self, app: App, queue: str, crew: Crew
    ) -> None:
        crew.worker()
        for attempts, body in ((1, b'{"args": [["return"]]}'), (2, b'{"args": [["retry 0", "return"]]}')):
            id = new_id()
            put(app, queue, None, {**GOOD, "type": "perform", "id": id}, body, JSON)
            assert Handle(id, queue, app).result(10) == attempts

    @keeps("C19")
    def test_headers_that_are_nested_too_deep_are_set_aside(
        self, app: App, inspector: Inspector, queue: str, jobs: Jobs, crew: Crew
    ) -> None:
        crew.worker()
        deep: list[Any] = []
        for _ in range(200):
            deep = [deep]
        put(app, queue, "deep", {**GOOD, "id": "deep", "trace": deep}, BODY, JSON)
        assert jobs.add.submit(1, 2).result(10) == 3
        eventually(lambda: inspector.count(queue + BURIED).ready == 1, "it is buried")
        (seen,) = inspector.browse(queue + BURIED, "ready")
        assert seen.body.endswith(BODY)

    @keeps("C19")
    def test_a_result_that_json_cannot_carry_is_the_jobs_own_error(self, jobs: Jobs, crew: Crew) -> None:
        crew.worker()
        for value in ("object", "nan", "infinity", "half", "depth"):
            error = outcome(jobs.unspeakable.submit(value))
            assert isinstance(error, JobBuried), value
            assert error.error.startswith("TypeError: unspeakable returned what JSON cannot carry: the result "), value

    @keeps("C19")
    def test_what_is_wrong_is_refused_in_the_callers_line(self, inspector: Inspector, queue: str, jobs: Jobs) -> None:
        with pytest.raises(TypeError, match="widht"):
            jobs.add.submit(1, 2, widht=3)  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            jobs.add.submit("one", 2)  # type: ignore[arg-type]
        with pytest.raises(Exception, match="bytes"):
            jobs.note.submit("x" * (BODY_LIMIT + 1))
        jobs.add.submit(1, 2)
        assert inspector.count(queue).ready == 1

    @keeps("C19")
    def test_a_job_type_that_a_worker_does_not_know_is_named(self, app: App, crew: Crew) -> None:
        crew.worker()
        error = outcome(app.submit(Job("unknown-1", "shop.forgotten")))
        assert isinstance(error, JobBuried)
        assert "shop.forgotten" in error.error


def put(app: App, queue: str, id: str | None, headers: Mapping[str, Any], body: bytes, content_type: str) -> None:
    """Publish a message as somebody who does not use kq would."""
    with app.broker.connection() as connection, connection.channel() as channel:
        declare_missing(channel, [queue], set())
        message = channel.prepare_message(
            body, 5, content_type, "utf-8", dict(headers), {"message_id": id} if id else {}
        )
        channel.basic_publish(message, exchange="", routing_key=queue)
