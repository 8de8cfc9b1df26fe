"""The names that the broker and the application know, each with what is said about it: for the shell to complete."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

from kq.app import App
from kq.cli.frame import flags
from kq.cli.looking import looking
from kq.cli.target import any_app, settings
from kq.control import Control, JobInfo
from kq.values.job import State
from kq.values.redaction import beginning

#: So many are offered at most.
MOST = 50
#: Seconds that the broker may take to answer: somebody waits with a finger on the tab key.
PATIENCE = 1.0


def _control() -> AbstractContextManager[Control]:
    """Control that does not wait for long, and imports no application."""
    settings()
    return looking(App("kq", flags().url, submit_timeout=PATIENCE))


def queues() -> Iterator[tuple[str, str]]:
    with _control() as control:
        yield from ((name, "") for name in control.queue_names())


def types() -> Iterator[tuple[str, str]]:
    app = any_app(settings())
    yield from ((name, (job_type.__doc__ or "").partition("\n")[0]) for name, job_type in app.jobs.items())
    yield from ((name.rpartition(".")[2], "") for name in app.jobs)


def jobs() -> Iterator[tuple[str, str]]:
    with _control() as control:
        yield from ((job.id, _about(job)) for job in control.jobs(limit=MOST))


def buried() -> Iterator[tuple[str, str]]:
    with _control() as control:
        yield from ((job.id, job.error) for job in control.jobs(state=State.BURIED, limit=MOST))


def _about(job: JobInfo) -> str:
    return f"{job.type}, {job.state.value}" + (f": {beginning(job.error, 60)}" if job.error else "")


def workers() -> Iterator[tuple[str, str]]:
    with _control() as control:
        yield from ((beat.worker.name, beat.health.value) for beat in control.heartbeat_check())


def effects() -> Iterator[tuple[str, str]]:
    with _control() as control:
        yield from ((entry.key, entry.stage) for entry in control.effects(limit=MOST))
