"""Reading of a page: what control tells of a queue, of failures or of a job, more than a snapshot does."""

from __future__ import annotations

from dataclasses import replace

from kq.cli import jobs
from kq.cli.monitor.scene import Book, JobRow, Page
from kq.control import Control, JobInfo, Where
from kq.job import State
from kq.redaction import redacted, redacted_text

#: So many jobs of a queue, or of a group of failures, are listed.
LISTED = 200


def read_page(control: Control, page: Page) -> Book:
    """What there is to know of it by now. Raises BrokerError."""
    match page.kind:
        case "queue":
            found = control.jobs(page.name, limit=LISTED)
            return Book(page, (("why", control.why_queue(page.name, local=True)),), tuple(map(_row, found)))
        case "group":
            where = Where(page.type, page.exception, place=page.place)
            found = control.buried(page.queue, where=where, limit=LISTED)
            return Book(page, jobs=tuple(map(_row, found)))
        case "job":
            return _job(control, page)
    return Book(page)


def _job(control: Control, page: Page) -> Book:
    job = control.job(page.name)
    if job is None:
        return Book(page, (("state", "unknown: it ended longer ago than results are kept"),))
    doubts = control.doubts(job.id) if job.state is State.BURIED else []
    facts = [("why", control.why(job.id, local=True)), *jobs.told(_harmless(job), doubts)]
    return Book(page, tuple(facts), (_row(job),))


def _harmless(job: JobInfo) -> JobInfo:
    """job without what looks like a secret: a screen is seen by more people than a command's output."""
    return replace(
        job,
        args=redacted(job.args),
        kwargs=redacted(job.kwargs),
        headers=redacted(job.headers),
        result=redacted(job.result),
        error=redacted_text(job.error),
        traceback=redacted_text(job.traceback),
        body=redacted_text(job.body),
        log=redacted_text(job.log),
    )


def _row(job: JobInfo) -> JobRow:
    note = redacted_text(job.error) or (jobs.call_of(_harmless(job)) if job.args or job.kwargs else "")
    at = job.buried if job.buried is not None else job.submitted
    return JobRow(job.id, job.type, job.queue, job.state.value, job.attempt, at, job.due, note, job.worker)
