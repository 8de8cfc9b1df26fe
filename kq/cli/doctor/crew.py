"""The doctor on workers: who is there, on which queues, with which code, and by which clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from kq import __version__
from kq.app import App
from kq.cli.doctor.finding import Finding
from kq.cli.doctor.server import clock
from kq.control import Control, Health, Heartbeat, QueueInfo, WorkerInfo
from kq.handles.trouble import queue_of
from kq.loading import version_of
from kq.units import counted, format_duration


def look(app: App) -> Iterator[Finding]:
    """All that is to be said of them."""
    with Control(app) as control:
        beats = control.heartbeat_check()
        queues = control.queues()
        yield from health(beats)
        yield from _gauges(control)
    workers = [beat.worker for beat in beats if beat.health is Health.ALIVE]
    yield from unserved(workers, queues)
    yield from unused(workers, queues, app)
    yield from clocks(workers)
    yield from versions(workers)
    yield from unknown(workers, app)


def health(beats: Sequence[Heartbeat]) -> Iterator[Finding]:
    """Whose heart beats, and how long ago it did. Of the dead those whom control has not retired yet."""
    for beat in beats:
        late = beat.health is Health.LATE
        if late or (beat.health is Health.DEAD and not beat.worker.retired):
            fix = (
                "Its jobs go to others when its lease is over."
                if late
                else "Its jobs go to others, if any live: kq status"
            )
            what = f"{beat.worker.name} is {beat.health}, last beat {format_duration(beat.age)} ago"
            yield Finding("warn", "workers", what, fix)
    ages = sorted(beat.age for beat in beats if beat.health is Health.ALIVE)
    if ages:
        yield Finding("ok", "workers", f"{len(ages)} alive, the oldest beat {format_duration(ages[-1])} ago")
    else:
        yield Finding("warn", "workers", "none is alive", "Start one: kq worker")


def _gauges(control: Control) -> Iterator[Finding]:
    gauges = control.health()
    for ids, what in (
        (gauges.held_without_lease, "held by a worker whose lease is over"),
        (gauges.past_limit, "running past its limit"),
    ):
        for id in ids:
            yield Finding("warn", "workers", f"job {id} is {what}", f"kq jobs why {id} says more.")


def unserved(workers: Sequence[WorkerInfo], queues: Sequence[QueueInfo]) -> Iterator[Finding]:
    """Queues with jobs that no worker takes."""
    for queue in queues:
        if workers and queue.ready and not queue.workers:
            fix = f"Start a worker for it: kq worker -Q {queue.name}"
            yield Finding(
                "warn", "workers", f"queue {queue.name} has {counted(queue.ready, 'job')} ready and no worker", fix
            )


def unused(workers: Sequence[WorkerInfo], queues: Sequence[QueueInfo], app: App) -> Iterator[Finding]:
    """Queues that workers take and nobody uses: no job type of the application, and nothing is in them.

    That of alerts is rarely used, and is kq's own.
    """
    ours = {job_type.settings.queue for job_type in app.jobs.values()}
    full = {
        queue.name for queue in queues if queue.ready or queue.delayed or queue.held or queue.buried or queue.parked
    }
    if not ours:
        return
    for name in sorted({name for worker in workers for name in worker.queues} - ours - full - {queue_of(app.name)}):
        fix = f"The application's queues are {', '.join(sorted(filter(None, ours)))}: is -Q or worker.queues right?"
        yield Finding("warn", "workers", f"queue {name} has workers, but no job type uses it and it is empty", fix)


def clocks(workers: Sequence[WorkerInfo]) -> Iterator[Finding]:
    """Hosts whose clock is off, by the state store's."""
    ahead = {worker.host: worker.clock - worker.beat for worker in workers if worker.clock}
    for host, seconds in ahead.items():
        yield from clock(f"the clock of {host} and the state store's", seconds, "workers")


def versions(workers: Sequence[WorkerInfo]) -> Iterator[Finding]:
    """Workers of one queue that run different code, and those with another kq than this one."""
    for queue in sorted({name for worker in workers for name in worker.queues}):
        codes = Counter(worker.code for worker in workers if queue in worker.queues and worker.code)
        if len(codes) > 1:
            told = ", ".join(f"{code} ({count})" for code, count in codes.most_common())
            fix = "Fine while you deploy; else kill -HUP the old ones, or kq workers retire NAME."
            yield Finding("warn", "workers", f"the workers of queue {queue} run different code: {told}", fix)
    for worker in workers:
        if worker.kq not in ("", __version__):
            fix = "Fine while you deploy. Workers first, then those who submit."
            yield Finding("warn", "workers", f"{worker.name} runs kq {worker.kq}, here is {__version__}", fix)


def unknown(workers: Sequence[WorkerInfo], app: App) -> Iterator[Finding]:
    """Job types of the application that the workers of their queue do not know, or know by other code."""
    for name, job_type in app.jobs.items():
        serving = [worker for worker in workers if job_type.settings.queue in worker.queues]
        if serving and not any(name in worker.types for worker in serving):
            fix = "They have older code, or another application; kill -HUP them."
            what = f"no worker of queue {job_type.settings.queue} knows the job type {name}: it would be buried"
            yield Finding("warn", "workers", what, fix)
    ours = version_of(app) if app.jobs else ""
    others = {worker.code for worker in workers if worker.code and app.jobs.keys() & set(worker.types)} - {ours}
    if ours and others:
        what = f"the application here has version {ours}, but workers run {', '.join(sorted(others))}"
        yield Finding("warn", "workers", what, "Fine while you deploy; else kill -HUP them.")
