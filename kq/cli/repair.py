"""`kq jobs edit`, `kick`, `bury`, `revoke`, `complete`, `rm` and `audit`: what people do to jobs.

Those that take several ids do what they can, say of each what became of it, and end with 1 when one was refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import click
import msgspec

from kq.app import App
from kq.cli import document, offer
from kq.cli.ask import YES, confirm, sure
from kq.cli.choose import choosing, where
from kq.cli.doubt import doubt_queue
from kq.cli.failing import DONE, LATE, NO
from kq.cli.frame import Duration, flags, verb, warn
from kq.cli.literal import parsed
from kq.cli.looking import looking
from kq.cli.show import print_json, print_table
from kq.cli.target import any_app, settings
from kq.cli.watch import watching
from kq.clock import SYSTEM
from kq.control import REPAIRABLE, Answer, Control, JobInfo, Where, schema
from kq.control.kicking import Kicking
from kq.control.view import known_job
from kq.errors import BadArguments, NotFound, NotRepaired
from kq.plain import printable
from kq.units import counted, format_duration, parse_rate

_IDS = click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=offer.JOB)
reason = click.option(
    "--reason", default="", metavar="TEXT", help="Why; it is kept in the job's history and the audit."
)


@verb("edit")
@click.argument("id", shell_complete=offer.JOB)
@click.option("--set", "assignments", multiple=True, metavar="PATH=VALUE", help="args.0=8, kwargs.a=x, delay=5m…")
@click.option("--unchecked", is_flag=True, help="Even when the application does not know the job's type.")
@reason
def edit(id: str, assignments: tuple[str, ...], unchecked: bool, reason: str) -> None:
    """Change the job ID, which is buried or waits, by --set or in $EDITOR.

    The arguments are checked against the job type of the application (-A). What has changed meanwhile, or started,
    stays as it is. A VALUE is JSON where it can be and else text; in quotes ('kwargs.code="007"') it is text always.
    """
    with looking(None if unchecked else _checking()) as control:
        job = known_job(control, id)
        if job.state not in REPAIRABLE:
            raise NotRepaired(f"job {id} is {job.state.value}; only one that waits or is buried is changed")
        parts = document.changed(document.of(job), assignments) if assignments else _by_hand(control, job)
        changed: Sequence[str] = ()
        if parts is not None:
            try:
                changed = control.edit(id, **parts, version=job.version, unchecked=unchecked, reason=reason)
            except (TypeError, ValueError) as error:
                raise BadArguments(str(error), fix="The job is as it was.") from error
    if flags().json:
        print_json({"id": id, "changed": changed})
    else:
        click.echo(printable(f"edited {id}: {', '.join(changed)}" if changed else f"{id} is as it was"))


def _by_hand(control: Control, job: JobInfo) -> dict[str, Any] | None:
    if not document.has_editor():
        raise click.UsageError("say what to change: --set args.0=8", click.get_current_context())
    return document.edited(job, lambda parts: control.check(job, parts.get("args", []), parts.get("kwargs", {})))


def _checking() -> App:
    """The application, by which arguments are checked; a warning where none is named."""
    app = any_app(settings())
    if not app.jobs:
        warn("the arguments are not checked here: no application is named (-A)")
    return app


@verb("kick")
@click.argument("ids", metavar="[ID]...", nargs=-1, shell_complete=offer.BURIED)
@choosing
@click.option("--all", "everything", is_flag=True, help="All buried jobs.")
@click.option("--limit", type=click.IntRange(1), help="At most so many, the first in order.")
@click.option("--rate", metavar="10/s", help="So many in a second, a minute (/m) or an hour (/h).")
@click.option("--first", type=click.IntRange(1), metavar="N", help="So many first, and the rest when they have ended.")
@click.option("--stop-on-same-failure", is_flag=True, help="With --first: not if one fails as before.")
@click.option("--wait", type=Duration(), default=300.0, metavar="5m", help="With --first: how long. [5m]")
@click.option(
    "--done", "answer", flag_value="done", help="What they are in doubt about has happened: do not repeat it."
)
@click.option("--repeat", "answer", flag_value="repeat", help="What they are in doubt about has not happened: do it.")
@click.option("--outcome", default="null", metavar="JSON", help="With --done: what came of it. [null]")
@click.option("--dry-run", is_flag=True, help="Only say which.")
@YES
@reason
def kick(
    ids: tuple[str, ...],
    queue: str | None,
    job_type: str | None,
    error: str | None,
    place: str | None,
    search: str | None,
    older: float | None,
    everything: bool,
    limit: int | None,
    rate: str | None,
    first: int | None,
    stop_on_same_failure: bool,
    wait: float,
    answer: Answer | None,
    outcome: str,
    dry_run: bool,
    yes: bool,
    reason: str,
) -> int:
    """Put buried jobs back into their queues: those of ID, or those that the options choose.

    They keep id, priority and history, and their attempts are counted anew. One that is in doubt whether its side
    effect happened (kq jobs show tells) needs an answer: --done or --repeat; without one it asks again.
    Exit code 1 when one of them was refused, or it was stopped; the others are kicked.
    """
    chosen = where(job_type, error, place, search, older)
    if not ids and not everything and queue is None and chosen == Where():
        raise click.UsageError("say which: ID..., --queue, --type, --error, --place, --search, --older or --all")
    pace, told = None if rate is None else _per_second(rate), parsed(outcome, "--outcome")
    with looking() as control:
        jobs = _meant(control, ids, queue, chosen, limit)
        if not jobs:
            doubt_queue(control, queue)
        if dry_run:
            return _tell_which(jobs)
        if not ids and jobs and not yes:
            _confirm(f"kick {counted(len(jobs), 'job')}")
        kicking = Kicking(control, reason=reason, answer=answer, outcome=told)
        kicking.run(jobs, rate=pace, first=first, stop_on_same_failure=stop_on_same_failure, patience=wait)
    return _tell_kicked(kicking, ids)


def _tell_kicked(kicking: Kicking, ids: Sequence[str]) -> int:
    """Print what became of it; returns the exit code."""
    kicked, refused = kicking.kicked, kicking.refused
    if not kicking.left:
        refused |= {id: "it is not buried" for id in ids if id not in {*kicked, *refused}}
    if flags().json:
        print_json(schema.kicked(kicking, refused))
    else:
        some = f": {' '.join(kicked)}" if 0 < len(kicked) <= 10 else ""
        click.echo(printable(f"kicked {len(kicked)}{some}"))
        for id, text in refused.items():
            click.echo(printable(f"not {id}: {text}"), err=True)
        if kicking.stopped:
            click.echo(f"stopped: {printable(kicking.stopped)}; {kicking.left} stay buried", err=True)
    return LATE if kicking.late else NO if kicking.stopped or refused else DONE


def _meant(control: Control, ids: Sequence[str], queue: str | None, chosen: Where, limit: int | None) -> list[JobInfo]:
    jobs = control.buried(queue, ids=ids, where=chosen, limit=limit)
    return list({job.id: job for job in jobs}.values())


def _tell_which(jobs: Sequence[JobInfo]) -> int:
    if flags().json:
        print_json({"would_kick": [job.id for job in jobs]})
    else:
        rows = [[job.id, job.type, job.queue, job.error] for job in jobs]
        print_table(["ID", "TYPE", "QUEUE", "ERROR"], rows, none="No buried job fits.", spare="QUEUE")
    return DONE


def _confirm(deed: str) -> None:
    # Kicking destroys nothing, so a script needs not say that it is meant.
    if sys.stdin.isatty() and not flags().json:
        confirm(deed)


def _per_second(rate: str) -> float:
    try:
        return parse_rate(rate)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--rate") from error


@verb("bury")
@_IDS
@reason
def bury(ids: tuple[str, ...], reason: str) -> int:
    """Set the jobs ID aside, which wait or are delayed, until somebody kicks them.

    Exit code 1 when one of them was refused; the others are buried.
    """
    with looking() as control:
        return _each(ids, "buried", lambda id: control.bury(id, reason))


@verb("revoke")
@_IDS
@click.option("--interrupt", is_flag=True, help="If it runs, interrupt it, and kill it when it ignores that.")
@reason
def revoke(ids: tuple[str, ...], interrupt: bool, reason: str) -> int:
    """End the jobs ID: they do not start, and do not run again. One that runs may finish, unless --interrupt.

    Exit code 1 when one of them had ended, lies buried or is not known; the others are revoked.
    """
    state: dict[str, str] = {}
    with looking() as control:
        if flags().json and len(ids) == 1:
            print_json({"id": ids[0], "revoked": True, "state": _revoked(control, ids[0], interrupt, reason)})
            return DONE
        return _each(ids, "revoked", lambda id: state.update({id: _revoked(control, id, interrupt, reason)}), state)


def _revoked(control: Control, id: str, interrupt: bool, reason: str) -> str:
    """Revoke it; returns its state then."""
    before = known_job(control, id)
    if not control.revoke(id, interrupt=interrupt, reason=reason):
        raise NotFound(f"job {id} is {before.state.value} and can't be revoked", fix=f"kq jobs why {id} says more.")
    job = control.job(id)
    return "" if job is None else job.state.value


@verb("rm")
@_IDS
@YES
@reason
def rm(ids: tuple[str, ...], yes: bool, reason: str) -> int:
    """End the jobs ID for good, which are buried or wait. Their handles say that they were deleted.

    Exit code 1 when one of them was refused; the others are deleted.
    """
    sure(f"delete {ids[0] if len(ids) == 1 else f'{len(ids)} jobs'} for good", yes)
    with looking() as control:
        return _each(ids, "deleted", lambda id: control.delete(id, reason=reason))


@verb("complete")
@_IDS
@click.option("--result", default="null", metavar="JSON", help="What they are to have returned. [null]")
@reason
def complete(ids: tuple[str, ...], result: str, reason: str) -> int:
    """End the buried jobs ID with a result, as if they had run.

    Exit code 1 when one of them was refused; the others are completed.
    """
    value = parsed(result, "--result")
    with looking() as control:
        return _each(ids, "completed", lambda id: control.complete(id, value, reason=reason))


def _each(
    ids: Sequence[str], done: str, act: Callable[[str], object], state: Mapping[str, str] = MappingProxyType({})
) -> int:
    """Do act to each of ids, whatever becomes of the others; returns the exit code.

    state: what each of them is by then, where that may be something else than done.
    """
    refused: dict[str, str] = {}
    for id in dict.fromkeys(ids):
        try:
            act(id)
        except (NotFound, NotRepaired) as error:
            refused[id] = error.message
            if len(ids) == 1 and not flags().json:
                raise
    made = [id for id in dict.fromkeys(ids) if id not in refused]
    if flags().json:
        print_json(schema.acted(done, made, refused))
        return NO if refused else DONE
    for id in made:
        then = f"; it is {state[id]} and will end" if state.get(id, done) != done else ""
        click.echo(printable(f"{done} {id}{then}"))
    for text in refused.values():
        click.echo(printable(text), err=True)
    return NO if refused else DONE


@verb("audit")
@watching
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many, the newest.")
def audit(limit: int) -> None:
    """Tell what people did to jobs, queues and workers in the last 30 days, the newest first."""
    with looking() as control:
        acts = control.audit(limit)
    if flags().json:
        print_json([msgspec.to_builtins(act) for act in acts])
        return
    now = SYSTEM.now()
    rows = [
        [format_duration(max(0.0, now - act.at)), act.by, act.act, act.about, ", ".join(act.changed), act.reason]
        for act in acts
    ]
    print_table(["AGO", "BY", "DID", "WHAT", "CHANGED", "REASON"], rows, right="AGO", none="Nobody did anything.")


VERBS = (edit, kick, bury, revoke, complete, rm, audit)
