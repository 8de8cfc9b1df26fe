"""What may be seen through the API, as a table, in the forms that the command line prints as JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast, get_args

import msgspec

from kq.control import MOST, Control, schema
from kq.control.sight import LISTED
from kq.control.veil import Veil
from kq.control.view import known_job
from kq.effects.ledger import Entry, Stage
from kq.errors import NotFound
from kq.values.job import State
from kq.web.acts import must_know_queue
from kq.web.choosing import CHOICE, listed
from kq.web.fields import Field, Said

Data: TypeAlias = dict[str, Any] | list[dict[str, Any]]

_LIMIT = Field("limit", "number", "At most so many.", 100, least=1, most=MOST)


@dataclass(frozen=True, slots=True)
class Look:
    """path: where it is asked for; {name} is what it is about. form: the verb of the command line that prints it.

    slow: a worker is asked, so it may take its time: then it keeps nobody else waiting.
    """

    path: str
    form: str
    about: str
    see: Callable[[Control, Veil, str, Said], Data]
    fields: tuple[Field, ...] = field(default=())
    slow: bool = False


def _status(control: Control, veil: Veil, name: str, said: Said) -> Data:
    return cast("dict[str, Any]", msgspec.to_builtins(control.snapshot()))


def _queues(control: Control, veil: Veil, name: str, said: Said) -> Data:
    return list(map(schema.queue, control.queues()))


def _why_queue(control: Control, veil: Veil, name: str, said: Said) -> Data:
    must_know_queue(control, name)
    return {"queue": name, "why": control.why_queue(name)}


def _jobs(control: Control, veil: Veil, name: str, said: Said) -> Data:
    control.freshen()
    return list(map(schema.job, listed(control, veil, said, said["state"], said["limit"])))


def _groups(control: Control, veil: Veil, name: str, said: Said) -> Data:
    return [schema.group(*each) for each in schema.grouped(listed(control, veil, said, State.BURIED, MOST))]


def _job(control: Control, veil: Veil, name: str, said: Said) -> Data:
    job = known_job(control, name)
    args, kwargs = veil.arguments(control, job)
    doubts = control.doubts(name) if job.state is State.BURIED else []
    return schema.whole_job(job, doubts) | {"args": args, "kwargs": kwargs, "version": job.version}


def _why_job(control: Control, veil: Veil, name: str, said: Said) -> Data:
    known_job(control, name)
    return {"id": name, "why": control.why(name)}


def _stack(control: Control, veil: Veil, name: str, said: Said) -> Data:
    return schema.stack(control.stack(name))


def _workers(control: Control, veil: Veil, name: str, said: Said) -> Data:
    control.freshen()
    return list(map(schema.worker, control.heartbeat_check()))


def _effects(control: Control, veil: Veil, name: str, said: Said) -> Data:
    return list(map(schema.effect, found_effects(control, veil, said)))


def found_effects(control: Control, veil: Veil, said: Said) -> list[Entry]:
    """Effects that are meant. Text is searched in what may be seen of them."""
    stage, text = cast("Stage | None", said["stage"]), said["search"].casefold()
    found = control.effects(said["prefix"], stage=stage, type=said["type"], limit=MOST if text else said["limit"])
    fits = [entry for entry in found if not text or text in str(veil.data(schema.effect(entry))).casefold()]
    return fits[: said["limit"]]


def _effect(control: Control, veil: Veil, name: str, said: Said) -> Data:
    entry = control.effect(name)
    if entry is None:
        raise NotFound(f"the ledger has no effect {name!r}", fix="kq effects ls lists them.")
    return schema.effect(entry)


def _held(control: Control, veil: Veil, name: str, said: Said) -> Data:
    return list(map(schema.held_job, control.held(said["queue"])))


def _audit(control: Control, veil: Veil, name: str, said: Said) -> Data:
    return [msgspec.to_builtins(act) for act in control.audit(said["limit"])]


EFFECTS = (
    Field("prefix", "text", "Only those whose key begins so.", ""),
    Field("stage", "text", "Only those begun, in doubt, or done.", choices=get_args(Stage)),
    Field("type", "text", "Only of this job type; * stands for anything.", ""),
    Field("search", "text", "Only with this text in what is shown of them.", ""),
    _LIMIT,
)
JOBS = (Field("state", "text", "Only jobs in this state.", choices=LISTED), *CHOICE, _LIMIT)

JOB = Look("/jobs/{name}", "jobs show", "All that is known of a job, without secrets.", _job)

LOOKS = (
    Look("/status", "status", "Everything at one moment: the snapshot.", _status),
    Look("/queues", "queues ls", "The queues and what is in them.", _queues),
    Look("/queues/{name}/why", "queues why", "Why the jobs of the queue wait.", _why_queue),
    Look("/jobs", "jobs ls", "Jobs that have not ended, in their order; the limit is for each queue.", _jobs, JOBS),
    Look("/failures", "jobs ls", "Buried jobs by what they failed of.", _groups, CHOICE),
    Look("/jobs/{name}/why", "jobs why", "Why the job is where it is.", _why_job),
    Look("/jobs/{name}/stack", "jobs stack", "Where the running job is, without stopping it.", _stack, slow=True),
    JOB,
    Look("/workers", "workers ls", "The workers of the last hour, and how their hearts beat.", _workers),
    Look("/effects", "effects ls", "Side effects that the ledger knows.", _effects, EFFECTS),
    Look("/held", "effects held", "What happens unless somebody says no.", _held, (CHOICE[0],)),
    Look("/effects/{name}", "effects show", "What is known of one effect.", _effect),
    Look("/audit", "jobs audit", "What people did in the last 30 days, the newest first.", _audit, (_LIMIT,)),
)
