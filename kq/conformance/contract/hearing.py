"""Hearing: who listens is told what happens to jobs and workers, on every broker."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate, buried, in_pools, outcome, with_settings
from kq.control import Control
from kq.errors import JobBuried
from kq.logging import Handler
from kq.values.event import Event
from kq.values.snapshot import RunningRow

#: Seconds within which what happens is heard.
SOON = 15.0
#: Seconds between two jobs that are submitted until one is heard of.
MOMENT = 0.1


class Listener:
    """What is heard, in a thread."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def of(self, job: str) -> list[str]:
        """The names of the events of a job, in order."""
        return [event.event for event in list(self.events) if event.job == job]

    def heard(self, job: str, *names: str) -> list[Event]:
        """The events of a job as soon as those names are among them."""
        eventually(lambda: set(names) <= set(self.of(job)), f"{', '.join(names)} of {job}", SOON)
        return [event for event in list(self.events) if event.job == job]


@contextmanager
def listening(app: App, **wanted: Any) -> Iterator[Listener]:
    """Listen while the block runs."""
    listener, over = Listener(), threading.Event()
    apart = app.apart()
    thread = threading.Thread(target=_listen, args=(apart, listener, over, wanted), daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        over.set()
        thread.join(10)
        apart.close()


def _listen(app: App, listener: Listener, over: threading.Event, wanted: dict[str, Any]) -> None:
    with Control(app) as control:
        for event in control.events(over=over, **wanted):
            listener.events.append(event)


class Hearing(ContractWorld):
    """Every move of a job is told while somebody listens."""

    def begun(self, listener: Listener, submit: Callable[[], Any]) -> None:
        """Submit jobs until one is heard of from its submit to its end: then everybody knows that somebody listens."""

        asked: list[str] = []

        def one() -> bool:
            handle = submit()
            handle.result(20)
            asked.append(handle.id)
            time.sleep(MOMENT)
            return any({"submitted", "started", "completed"} <= set(listener.of(id)) for id in asked)

        eventually(one, "somebody listens, and everybody knows", SOON)

    def test_a_job_is_heard_of_from_its_submit_to_its_end(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, queue: str
    ) -> None:
        crew.worker()
        with listening(app) as listener:
            self.begun(listener, jobs.note.submit)
            job = jobs.note.submit("word")
            events = {event.event: event for event in listener.heard(job.id, "submitted", "started", "completed")}
            (worker,) = (each.name for each in control.workers())
        assert events.keys() == {"submitted", "started", "completed"}
        started, completed = events["started"], events["completed"]
        assert (started.type, started.queue, started.worker, started.attempt) == ("note", queue, worker, 1)
        assert completed.seconds is not None
        assert -0.01 <= started.at - events["submitted"].at < SOON  # the submit is told of when it has returned
        assert completed.at >= started.at

    def test_what_fails_says_why_and_what_becomes_of_the_job(self, app: App, jobs: Jobs, crew: Crew) -> None:
        crew.worker()
        with listening(app) as listener:
            self.begun(listener, jobs.note.submit)
            job = jobs.perform_fixed.submit(["raise OSError", "bad"])
            outcome(job)
            events = listener.heard(job.id, "failed", "buried")
        assert [event.event for event in events if event.worker] == ["started", "failed", "started", "buried"]
        failed, buried = (event for event in events if event.error)
        assert (failed.error, failed.message, failed.attempt) == ("OSError", "OSError: as asked", 1)
        assert failed.next is not None
        assert 0.1 <= failed.next - failed.at <= 0.3
        assert (buried.error, buried.next, buried.attempt) == ("BadJob", None, 2)

    def test_who_wants_one_job_or_type_hears_of_no_other(self, app: App, jobs: Jobs, crew: Crew, queue: str) -> None:
        crew.worker()
        with listening(app, type="ad?", queue=queue) as some, listening(app) as all:
            self.begun(all, jobs.note.submit)
            self.begun(some, lambda: jobs.add.submit(1, 2))
        assert {event.type for event in some.events} == {"add"}
        assert {"note", "add"} <= {event.type for event in all.events}

    def test_who_ends_is_not_told_any_more_and_others_are(self, app: App, jobs: Jobs, crew: Crew) -> None:
        crew.worker()
        with listening(app) as stays:
            with listening(app) as leaves:
                self.begun(leaves, jobs.note.submit)
            heard = len(leaves.events)
            job = jobs.note.submit()
            stays.heard(job.id, "completed")
        assert len(leaves.events) == heard
        with Control(app) as control:
            assert control.ping()  # and the worker goes on

    def test_jobs_run_as_ever_when_nobody_listens(self, app: App, jobs: Jobs, crew: Crew) -> None:
        crew.worker()
        assert [handle.result(20) for handle in app.submit_many(jobs.add.job(n, 1) for n in range(20))]
        with listening(app) as listener:
            self.begun(listener, jobs.note.submit)
        assert jobs.note.submit("after").result(20) == "after"

    def test_who_follows_the_logs_reads_what_jobs_and_programs_log(
        self, app: App, jobs: Jobs, crew: Crew, queue: str, gate: Gate
    ) -> None:
        crew.worker()
        gate.open()
        handler, logger = Handler(app), logging.getLogger("shop.test")
        logger.addHandler(handler)
        try:
            with listening(app, what="logs") as listener:

                def both() -> bool:
                    logger.warning("an order from %s", "Uppsala")
                    jobs.work.submit(gate.path).result(20)
                    return len({event.logger for event in list(listener.events)}) == 2

                eventually(both, "both are heard", SOON)
        finally:
            logger.removeHandler(handler)
            handler.close()
        told = {event.logger: event for event in listener.events}
        inside, outside = told["shop.pages"], told["shop.test"]
        assert (inside.event, inside.level, inside.message) == ("log", "WARNING", "page 4 is missing")
        assert (inside.type, inside.queue, inside.attempt) == ("work", queue, 1)
        assert inside.job
        assert inside.worker
        assert (outside.message, outside.job) == ("an order from Uppsala", "")


class Remembering(ContractWorld):
    """What happened before anybody listened, where workers are told to remember it."""

    @with_settings(KQ_EVENTS_KEEP="60s")
    def test_what_happened_before_somebody_came_is_told(
        self, app: App, jobs: Jobs, crew: Crew, control: Control
    ) -> None:
        began = app.store.now() - 1
        crew.worker()
        done, bad = jobs.note.submit("word"), jobs.perform.submit(["bad"])
        assert done.result(20) == "word"
        outcome(bad)

        def told() -> dict[str, list[str]]:
            return {job.id: [event.event for event in control.past(began, job=job.id)] for job in (done, bad)}

        whole = {done.id: ["started", "completed"], bad.id: ["started", "buried"]}
        eventually(lambda: told() == whole, "it is remembered", SOON)
        events = control.past(began)
        assert [event.at for event in events] == sorted(event.at for event in events)
        assert "ready" in {event.event for event in events}
        assert not control.past(app.store.now() + 60)


class Telling(ContractWorld):
    """What a job says of itself while it runs."""

    def test_how_far_a_job_is_can_be_seen_and_heard(self, app: App, jobs: Jobs, crew: Crew, gate: Gate) -> None:
        crew.worker()
        with listening(app) as listener, Control(app) as control:
            job = jobs.work.submit(gate.path)

            def running() -> RunningRow | None:
                seen = [each for worker in control.snapshot().workers for each in worker.running]
                return next((each for each in seen if each.id == job.id and each.progress is not None), None)

            seen = eventually(running, "its progress is seen", SOON)
            (event,) = [each for each in listener.heard(job.id, "progress") if each.event == "progress"]
            why = control.why(job.id)
            gate.open()
            job.result(20)
        assert seen is not None
        assert seen.progress is not None
        assert (seen.progress.n, seen.progress.of, seen.progress.text) == (3, 10, "page 3")
        assert list(seen.arguments) == ["gate"]
        assert (event.n, event.of, event.message) == (3, 10, "page 3")
        assert "of at most 30m00s (3/10 page 3), whose last beat" in why

    @in_pools("process", "async")
    def test_a_job_that_asks_for_more_time_in_time_gets_it(self, jobs: Jobs, crew: Crew, pool: str) -> None:
        crew.worker(pool=pool, concurrency=2)  # type: ignore[arg-type]
        long, short = jobs.take_longer.submit(1.6, more=30), jobs.take_longer.submit(5, more=0.2)
        assert isinstance(long.result(20), int)
        assert isinstance(outcome(short), JobBuried)

    @in_pools("process", "thread")
    def test_what_a_job_logs_stays_with_it(
        self, app: App, jobs: Jobs, crew: Crew, control: Control, queue: str, gate: Gate, pool: str
    ) -> None:
        crew.worker(pool=pool)  # type: ignore[arg-type]
        gate.open()
        well, ill = jobs.work.submit(gate.path), jobs.work.submit(gate.path, "bad")
        well.result(20)
        done, lies = control.job(well.id), buried(control, queue, ill)
        assert done is not None
        for job in (done, lies):
            assert job.log.endswith(" WARNING shop.pages: page 4 is missing\n")
            assert job.log.count("\n") == 1
