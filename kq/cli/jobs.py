"""`kq jobs`: what waits, is delayed, runs or was buried; and all that is known of one job."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import click

from kq.cli import offer, orders, rehearse, repair, streams
from kq.cli.choose import choosing, where
from kq.cli.doubt import doubt_queue
from kq.cli.frame import flags, noun
from kq.cli.looking import looking
from kq.cli.show import fitting, print_json, print_table
from kq.cli.watch import watching
from kq.clock import SYSTEM
from kq.control import MOST, Control, Entry, JobInfo, Where, schema
from kq.control.sight import LISTED
from kq.control.view import known_job
from kq.handles.duplicate import Duplicates
from kq.handles.stream import Emitted
from kq.plain import cut, printable
from kq.units import counted, format_duration, format_local, format_size
from kq.values.job import State
from kq.values.message import Attempt
from kq.values.secret import without_marked

#: Headers that `show` has lines of their own for, or that say nothing to people.
_TOLD = {
    *("kq", "id", "type", "history", "error", "traceback", "log", "queue", "degraded_by", "fallback", "first"),
    *("submitted", "due", "buried", "unique", "traceparent", "failed", "lost", "infra"),
}
#: Characters of the names of what is shown.
NAMES = 9
#: Characters that are told of a chunk.
CHUNK = 200


@noun("jobs")
def command() -> None:
    """List jobs, look at one, and repair them."""


@command.command("ls")
@watching
@click.option("--state", type=click.Choice([state.value for state in LISTED]), help="Only jobs in this state.")
@choosing
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many of each queue.")
@click.option("--group", is_flag=True, help="Buried jobs by type, exception and place of the failure.")
def ls(
    state: str | None = None,
    queue: str | None = None,
    job_type: str | None = None,
    error: str | None = None,
    place: str | None = None,
    search: str | None = None,
    older: float | None = None,
    limit: int = 100,
    group: bool = False,
) -> None:
    """List jobs in the order in which they would run. Those that have ended are not listed; `show` knows them."""
    chosen, none = where(job_type, error, place, search, older), "There are no such jobs."
    with looking() as control:
        control.freshen()
        if group:
            _print_groups(control.jobs(queue, State.BURIED, MOST, chosen))
            return
        jobs = control.jobs(queue, state, limit, chosen)
        if not jobs:
            doubt_queue(control, queue)
        if not (jobs or queue or state or chosen != Where()):
            none = _nothing(control)
    if flags().json:
        print_json(list(map(schema.job, jobs)))
        return
    rows = [[job.id, job.type, job.queue, job.state.value, str(job.attempt), _note(job)] for job in jobs]
    headings = ["ID", "TYPE", "QUEUE", "STATE", "ATTEMPT", "NOTE"]
    print_table(headings, rows, right="ATTEMPT", none=none, spare="ATTEMPT QUEUE")


def _nothing(control: Control) -> str:
    """What there is to say where there are no jobs: those that have ended are not lost."""
    done = control.snapshot().totals.completed
    told = "There are no jobs: none waits, runs or lies buried."
    if not done:
        return told
    return f"{told} {done:,} completed: kq jobs show ID tells what one returned, as long as that is kept."


def _print_groups(jobs: Sequence[JobInfo]) -> None:
    """Buried jobs by what they failed of, the most frequent first."""
    found = schema.grouped(jobs)
    if flags().json:
        print_json([schema.group(*each) for each in found])
        return
    now = SYSTEM.now()
    rows = [
        [failure.type, failure.exception, failure.place, str(count), _ago(newest, now), newest.id]
        for failure, count, newest in found
    ]
    headings = ["TYPE", "EXCEPTION", "WHERE", "JOBS", "NEWEST", "ID"]
    print_table(headings, rows, right="JOBS", none="Nothing is buried.", spare="NEWEST WHERE")


def _ago(job: JobInfo, now: float) -> str:
    return "" if job.buried is None else f"{format_duration(max(0.0, now - job.buried))} ago"


@command.command("show")
@watching
@click.argument("id", shell_complete=offer.JOB)
def show(id: str) -> None:
    """Show all that is known of the job ID: arguments, history, error, result."""
    with looking() as control:
        job = known_job(control, id)
        doubts = control.doubts(id) if job.state is State.BURIED else []
    if flags().json:
        print_json(schema.whole_job(job, doubts))
        return
    for name, text in told(job, doubts):
        # Code stays as it is: it is read by its indentation.
        whole = printable(text) if name in (" ", "log") else fitting(printable(text), NAMES + 2)
        click.echo(f"{click.style(name.rjust(NAMES), bold=True)}  {whole}")


for more in (streams.command, orders.why_job, orders.stack, rehearse.rehearse, *repair.VERBS):
    command.add_command(more)


def _note(job: JobInfo) -> str:
    if job.error:
        return job.error
    if job.due is not None:
        why = f"held, staged by {job.parent}, " if job.is_held and job.parent else "held, " if job.is_held else ""
        return f"{why}due {due_in(job)}"
    return job.worker


def due_in(job: JobInfo) -> str:
    """When a delayed job becomes ready: "in 5m"."""
    return "" if job.due is None else f"in {format_duration(max(0.0, job.due - SYSTEM.now()))}"


def told(job: JobInfo, doubts: Sequence[Entry]) -> Iterator[tuple[str, str]]:
    """All of a job, as names and texts. doubts: its side effects of which nobody knows whether they happened."""
    yield from _lines(job)
    yield from _questions(job, doubts)


def _lines(job: JobInfo) -> Iterator[tuple[str, str]]:
    yield "id", job.id
    yield "type", job.type
    if job.degraded_by:
        yield "degraded", _degraded(job)
    elif job.types:
        yield "fallback", ", ".join(job.types[1:])
    yield "queue", f"{job.queue}, priority {job.priority}" if job.has_message else job.queue
    yield "state", job.state.value
    for name, text in (("worker", job.worker), ("error", job.error)):
        if text:
            yield name, text
    for name, instant in (("submitted", job.submitted), ("buried", job.buried)):
        if instant:
            yield name, f"{format_local(instant)} ({_since(instant)})"
    if job.trace:
        yield "trace", job.trace
    if unique := job.headers.get("unique"):
        yield "unique", _json(unique) if not isinstance(unique, str) else unique
    if job.duplicates is not None:
        yield "again", duplicates_of(job.duplicates)
    if job.due is not None:
        yield "due", due_in(job)
    if job.has_message:
        yield ("body", job.body) if job.body else ("arguments", call_of(job))
    if more := {name: value for name, value in job.headers.items() if name not in _TOLD}:
        yield "headers", _json(more)
    if job.state is State.COMPLETED:
        yield "result", _json(job.result)
    if job.emitted is not None:
        yield from _emitted(job.id, job.emitted)
    if job.took:
        yield "cost", cost_of(job.took, job.cpu, job.rss)
    for attempt in job.history:
        yield f"attempt {attempt.number}" if attempt.number else "by hand", _happened(attempt, job.error)
    yield from ((" ", line) for line in job.traceback.splitlines())
    yield from (("log", line) for line in job.log.splitlines())


def _emitted(id: str, stream: Emitted) -> Iterator[tuple[str, str]]:
    """How many chunks there are of its stream, and the last of them."""
    more = f", {stream.left_out:,} more were left out" if stream.left_out else ""
    yield "emitted", f"{counted(stream.count, 'chunk')}{more}; kq jobs stream {id} prints them; the last:"
    yield from (("", cut(_json(chunk.value), CHUNK)) for chunk in stream.last)


def duplicates_of(found: Duplicates) -> str:
    """Who else wanted the job."""
    submits = "1 more submit" if found.count == 1 else f"{found.count:,} more submits"
    ago = format_duration(max(0.0, round(SYSTEM.now() - found.latest, 1)))
    return f"{submits} found its unique key held, the latest {ago} ago"


def _degraded(job: JobInfo) -> str:
    """Which of its job types it is, and what it was submitted as."""
    types = job.types or [attempt.type for attempt in job.history if attempt.type]
    of = f" of {len(job.types) - 1}" if job.types else ""
    return f"fallback {job.degraded_by}{of}" + (f", instead of {types[0]}" if types else "")


def _questions(job: JobInfo, doubts: Sequence[Entry]) -> Iterator[tuple[str, str]]:
    """What is not known, and how it is answered."""
    for entry in doubts:
        yield "in doubt", f"did the effect {entry.key} happen? Nobody knows."
        begun = f"begun at {format_local(entry.since)} by {entry.type} {entry.job}, attempt {entry.attempt}"
        yield "", f"It was {begun}; {entry.note}."
    if doubts:
        yield "", f"It happened:  kq jobs kick {job.id} --done"
        yield "", f"It did not:   kq jobs kick {job.id} --repeat"


def _since(instant: float) -> str:
    return f"{format_duration(max(0.0, SYSTEM.now() - instant))} ago"


def _happened(attempt: Attempt, known: str) -> str:
    """known: the job's error, which is not told again."""
    if not attempt.number:
        why = f": {attempt.error}" if attempt.error else ""
        return f"{attempt.outcome} by {attempt.worker} {_since(attempt.ended)}{why}"
    took = cost_of(attempt.ended - attempt.started, attempt.cpu, attempt.rss)
    as_type = f" as {attempt.type}" if attempt.type else ""
    why = f": {attempt.error}" if attempt.error != known else ""
    return f"{attempt.outcome} after {took}{as_type} on {attempt.worker}{why}"


def cost_of(took: float, cpu: float | None, rss: int) -> str:
    """What an attempt cost: 3.2s (1.1s of processor time, 210 MiB)."""
    more = [f"{format_duration(cpu) if cpu else '0s'} of processor time"] if cpu is not None else []
    more += [f"{format_size(rss)} of memory at most"] if rss else []
    return format_duration(max(0.0, took)) + (f" ({', '.join(more)})" if more else "")


def call_of(job: JobInfo) -> str:
    """The job as a call: resize("cat.png", width=200)."""
    named = [f"{name}={_json(value)}" for name, value in job.kwargs.items()]
    return f"{job.type}({', '.join([*map(_json, job.args), *named])})"


def _json(value: object) -> str:
    return json.dumps(without_marked(value), ensure_ascii=False)
