"""Reading of a page: what control tells of a queue, of failures or of a job, more than a snapshot does."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import structs

from kq.cli import jobs
from kq.cli.monitor.scene import Book, JobRow, Page
from kq.control import Control, JobInfo, Where
from kq.control.veil import Veil
from kq.values.job import State
from kq.values.redaction import TEXT

#: So many jobs of a queue, or of a group of failures, are listed.
LISTED = 200
#: A screen is seen by more people than a command's output.
_VEIL = Veil(longest=TEXT)


def read_page(control: Control, page: Page) -> Book:
    """What there is to know of it by now. Raises BrokerError."""
    match page.kind:
        case "queue":
            found = control.jobs(page.name, limit=LISTED)
            return Book(page, (("why", _VEIL.text(control.why_queue(page.name, local=True))),), _rows(control, found))
        case "group":
            where = Where(page.type, page.exception, place=page.place)
            found = control.buried(page.queue, where=where, limit=LISTED)
            return Book(page, jobs=_rows(control, found))
        case "job":
            return _job(control, page)
    return Book(page)


def _job(control: Control, page: Page) -> Book:
    job = control.job(page.name)
    if job is None:
        return Book(page, (("state", "unknown: it ended longer ago than results are kept"),))
    doubts = control.doubts(job.id) if job.state is State.BURIED else []
    doubts = [structs.replace(each, note=_VEIL.text(each.note)) for each in doubts]
    facts = [("why", _VEIL.text(control.why(job.id, local=True))), *jobs.told(_VEIL.job(control, job), doubts)]
    return Book(page, tuple(facts), (_row(control, job),))


def _rows(control: Control, found: Iterable[JobInfo]) -> tuple[JobRow, ...]:
    return tuple(_row(control, job) for job in found)


def _row(control: Control, whole: JobInfo) -> JobRow:
    job = _VEIL.job(control, whole)
    note = job.error or (jobs.call_of(job) if job.args or job.kwargs else "")
    at = job.buried if job.buried is not None else job.submitted
    return JobRow(job.id, job.type, job.queue, job.state.value, job.attempt, at, job.due, note, job.worker)
