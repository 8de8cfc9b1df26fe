"""`kq jobs rehearse`: see what a job would do, and how it would end, before it is put back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from kq.cli import offer
from kq.cli.ask import YES, sure
from kq.cli.failing import DATA, DONE, NO, Refused
from kq.cli.frame import flags, verb
from kq.cli.repair import reason
from kq.cli.show import print_json
from kq.cli.target import named_app, settings
from kq.control import Control
from kq.control.commands import kick, written
from kq.control.view import known_job
from kq.plain import printable
from kq.units import format_duration
from kq.values.deed import Deed
from kq.values.job import State
from kq.values.outcome import (
    Asked,
    Bury,
    Complete,
    Died,
    Done,
    FallBack,
    OutOfMemory,
    Raised,
    Retry,
    TimedOut,
    Unusable,
)
from kq.values.secret import without_marked
from kq.values.stack import Frame


@verb("rehearse")
@click.argument("id", shell_complete=offer.JOB)
@YES
@reason
def rehearse(id: str, yes: bool, reason: str) -> int:
    """Run the code of job ID, which is buried or waits, with its arguments, to see what it would do.

    It runs here and now, under the limits of its type. What it does through kq is listed and not done: side effects
    under a key (job.once, @app.effect), mails, alerts, submits. All else it does is done. The job itself, its queue
    and the ledger stay as they are. Exit code 0: it would complete; 1: it would not; 65: its arguments do not fit.
    """
    # Not above: what lists jobs need not know how they run.
    from kq.worker.rehearsal import Rehearsal

    loaded = settings()
    app = named_app(loaded)
    with Rehearsal(app, loaded.config.worker.max_rss or 0) as rehearsal:
        try:
            with Control(app) as control:
                known = known_job(control, id)
                if known.type in app.jobs and not app.jobs[known.type].rehearse:
                    raise Refused(f"jobs of type {known.type} are not rehearsed: their code says rehearse=False")
                _tell(
                    f"What {known.type} does through kq will be listed, not done. "
                    "What else it does, it does: files, requests, databases."
                )
                sure(f"rehearse job {id}", yes)
                seen = control.rehearsing(id, reason=reason)
        finally:
            app.close()
        deeds, said = list[Deed](), list[str]()

        def tell(deed: Deed) -> None:
            deeds.append(deed)
            _tell(str(deed))

        def show(text: str) -> None:
            if said[-1:] != [text]:
                said.append(text)
                _tell(text)

        _tell(f"It runs, for {format_duration(rehearsal.timeout(seen))} at most; ctrl-C ends it.")
        try:
            played = rehearsal.play(seen, tell, lambda far: show(_progress(far.n, far.of, far.text)), _stands)
        except KeyboardInterrupt:
            rehearsal.close()
            _tell("The rehearsal is ended. The job stays as it was.")
            raise
    told = how_it_ended(played.outcome, played.verdict)
    if flags().json:
        print_json({"id": id, **told, "took": round(played.took, 3), "deeds": [*map(msgspec.to_builtins, deeds)]})
    else:
        _print(told, played.took)
        if isinstance(played.outcome, Done) and known.state is State.BURIED:
            click.echo(f"  {written(kick(id))}")
    return DONE if isinstance(played.outcome, Done) else DATA if isinstance(played.outcome, Unusable) else NO


def _tell(text: str) -> None:
    if not flags().json:
        click.echo(printable(text), err=True)


def _stands(seconds: float, frames: Sequence[Frame]) -> None:
    """Where a job is that runs for long: in its own code, and what that has called at last."""
    where = dict.fromkeys([*frames[:1], *frames[-1:]])
    _tell(f"It has run for {format_duration(seconds)}" + (", and is here:" if where else "."))
    for frame in where:
        _tell(f"  {frame}")


def _progress(n: float, of: float, text: str) -> str:
    return f"progress {n:g}{f' of {of:g}' if of else ''} {text}".rstrip()


def how_it_ended(outcome: object, verdict: object) -> dict[str, Any]:
    """What an attempt came to, and what a worker would make of that."""
    ended: dict[str, Any] = {"ended": "raised", "result": None, "error": None, "traceback": None}
    match outcome:
        case Done(value):
            ended |= {"ended": "completed", "result": msgspec.json.decode(value)}
        case Raised(failure):
            ended |= {"error": str(failure), "traceback": failure.traceback}
        case Asked(failure):
            ended |= {"ended": "retry", "error": str(failure)}
        case TimedOut(after, killed, failure):
            how = f"ran past {format_duration(after)}" + (" and was killed" if killed else "")
            ended |= {"ended": "timed out", "error": how, "traceback": failure.traceback if failure else None}
        case Died(how):
            ended |= {"ended": "died", "error": how}
        case OutOfMemory(how):
            ended |= {"ended": "out of memory", "error": how}
        case Unusable(why):
            ended |= {"ended": "unusable", "error": why}
    return ended | {"then": _then(verdict)}


def _then(verdict: object) -> str:
    match verdict:
        case Complete():
            return "completed"
        case Retry():
            return "retried"
        case FallBack():
            return "done by its fallback"
        case Bury():
            return "buried"
    return "revoked"


def _print(told: dict[str, Any], took: float) -> None:
    for line in (told["traceback"] or "").splitlines():
        click.echo(printable(line))
    what = (
        msgspec.json.encode(without_marked(told["result"])).decode() if told["ended"] == "completed" else told["error"]
    )
    click.echo(printable(f"{told['ended']} after {format_duration(round(took, 3))}: {what}"))
    if told["ended"] != "completed":
        click.echo(f"It would be {told['then']}.")
