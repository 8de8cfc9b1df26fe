"""What may be done, as a table: the page's forms, the API and its description are made of it.

Each act says by whom it was done; control writes that into the audit before anything is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from threading import Event
from typing import Any, TypeAlias

from kq.control import Control, schema
from kq.control.kicking import Kicking
from kq.control.orders import after_set
from kq.control.veil import Veil
from kq.control.view import known_job
from kq.credential import Role
from kq.errors import BadArguments, MessageError, NotFound, NotRepaired
from kq.handles.standing import SLOTS
from kq.units import format_duration, parse_rate
from kq.values.job import HIGHEST, LOWEST, Settings
from kq.values.message import encode_result
from kq.web.choosing import CHOICE, buried
from kq.web.fields import Field, Said

Data: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One act, as somebody wants it done. name: of what the path names. said: all fields. by: who.

    over: set when nobody waits for its end any more.
    """

    control: Control
    veil: Veil
    name: str
    said: Said
    by: str
    over: Event

    @property
    def reason(self) -> str:
        return str(self.said["reason"])


@dataclass(frozen=True, slots=True)
class Act:
    """path: where it is posted; {name} is what it is done to. form: the verb of the command line that prints the same.

    role: what it takes. slow: of what is said, whether it may take its time: then it keeps nobody else waiting.
    """

    path: str
    form: str
    role: Role
    about: str
    do: Callable[[Wanted], Data]
    fields: tuple[Field, ...] = field(default=())
    slow: Callable[[Said], bool] = lambda said: False


#: Seconds that one request may take.
LONGEST = 300.0
REASON = Field("reason", "text", "Why; it is kept in the audit, and in a job's history.", "")
_IDS = Field("ids", "texts", "The jobs.", must=True)
_ANSWER = Field("answer", "text", "What a human found out about its side effects.", choices=("done", "repeat"))
_OUTCOME = Field("outcome", "json", "With answer=done: what came of it.")


# Queues and job types.


def _pause(wanted: Wanted) -> Data:
    must_know_queue(wanted.control, wanted.name)
    wanted.control.pause(wanted.name, reason=wanted.reason, by=wanted.by)
    return _told(wanted.control, paused=f"queue {wanted.name}")


def _resume(wanted: Wanted) -> Data:
    wanted.control.resume(wanted.name, reason=wanted.reason, by=wanted.by)
    return _told(wanted.control, resumed=f"queue {wanted.name}")


def _pause_type(wanted: Wanted) -> Data:
    wanted.control.pause_type(wanted.name, reason=wanted.reason, by=wanted.by)
    return _told(wanted.control, paused=f"type {wanted.name}")


def _resume_type(wanted: Wanted) -> Data:
    back = wanted.control.resume_type(wanted.name, reason=wanted.reason, by=wanted.by)
    return _told(wanted.control, resumed=f"type {wanted.name}", back=back)


def _purge(wanted: Wanted) -> Data:
    must_know_queue(wanted.control, wanted.name)
    ended = wanted.control.purge(wanted.name, buried=wanted.said["buried"], reason=wanted.reason, by=wanted.by)
    return {"queue": wanted.name, "purged": ended}


def _remove_queue(wanted: Wanted) -> Data:
    must_know_queue(wanted.control, wanted.name)
    wanted.control.remove_queue(wanted.name, reason=wanted.reason, by=wanted.by)
    return {"queue": wanted.name, "removed": True}


def _told(control: Control, **data: object) -> Data:
    return {**data, "heard": control.ping(), "workers": [worker.name for worker in control.workers()]}


def must_know_queue(control: Control, queue: str) -> None:
    """Raise NotFound when there is no such queue."""
    if queue not in control.queue_names():
        raise NotFound(f"there is no queue {queue!r}", fix="kq queues ls names them.")


# Jobs.


def _submit(wanted: Wanted) -> Data:
    said, app = wanted.said, wanted.control.app
    args, kwargs = said["args"], said["kwargs"]
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise BadArguments("args is a list and kwargs an object")
    if app.jobs and said["type"] not in app.jobs and said["queue"] is None:
        raise NotFound(
            f"app {app.name!r} has no job type {said['type']!r}", fix="Say in which queue a type belongs that it lacks."
        )
    try:
        settings = Settings(**{name: said[name] for name in ("queue", "priority", "delay", "unique")})
        job = app.made(said["type"], args, kwargs, settings)
    except (TypeError, ValueError) as error:
        raise BadArguments(str(error), fix="Nothing was submitted.") from error
    handle = wanted.control.submit(job, reason=wanted.reason, by=wanted.by)
    return {"id": handle.id, "type": job.type, "queue": handle.queue}


def _kick(wanted: Wanted) -> Data:
    return _kicked(wanted, wanted.said["ids"])


def _kick_one(wanted: Wanted) -> Data:
    return _kicked(wanted, [wanted.name])


def _kicked(wanted: Wanted, ids: Iterable[str]) -> Data:
    """Kick what is meant; what is in doubt with the answer that was given."""
    said, ids = wanted.said, list(ids)
    chooses = [said[each.name] for each in CHOICE if each.name in said]
    if not ids and not any(chooses) and not said.get("all"):
        raise BadArguments("it is not said which jobs are meant", fix="Say ids, queue, type, error, search or all.")
    choice = {each.name: said.get(each.name, each.usual) for each in CHOICE}
    jobs = {job.id: job for job in buried(wanted.control, wanted.veil, choice, ids, said.get("limit"))}
    if said.get("dry_run"):
        return {"would_kick": list(jobs)}
    refused = {id: "it is not buried" for id in ids if id not in jobs}
    kicking = Kicking(
        wanted.control,
        reason=wanted.reason,
        by=wanted.by,
        answer=said["answer"],
        outcome=_carried(said["outcome"]),
        over=wanted.over,
    )
    kicking.run(list(jobs.values()), **_pace(said, len(jobs)))
    return schema.kicked(kicking, refused | kicking.refused)


def _pace(said: Said, jobs: int) -> dict[str, Any]:
    """How fast to kick so many jobs. Raises BadArguments for what would take too long."""
    if not _takes_its_time(said):
        return {}
    try:
        rate = parse_rate(said["rate"]) if said["rate"] else None
    except ValueError as error:
        raise BadArguments(f"rate: {error}") from error
    seconds = (jobs / rate if rate else 0.0) + (said["wait"] if said["first"] else 0.0)
    if seconds > LONGEST:
        fix = f"One request takes {format_duration(LONGEST)} at most: say limit, or less of wait."
        raise BadArguments(f"that would take up to {format_duration(seconds)}", fix=fix)
    names = {"first": "first", "stop_on_same_failure": "stop_on_same_failure", "patience": "wait"}
    return {"rate": rate, **{name: said[field] for name, field in names.items()}}


def _takes_its_time(said: Said) -> bool:
    return bool(said.get("rate") or said.get("first"))


def _edit(wanted: Wanted) -> Data:
    said, control = wanted.said, wanted.control
    job = known_job(control, wanted.name)
    args, kwargs = said["args"], said["kwargs"]
    if not isinstance(args, list | None) or not isinstance(kwargs, dict | None):
        raise BadArguments("args is a list and kwargs an object", fix="The job is as it was.")
    try:
        args, kwargs = wanted.veil.whole(control, job, args, kwargs)
        changed = control.edit(
            wanted.name,
            args=args,
            kwargs=kwargs,
            priority=said["priority"],
            delay=said["delay"],
            version=said["version"] or job.version,
            unchecked=said["unchecked"],
            reason=wanted.reason,
            by=wanted.by,
        )
    except (TypeError, ValueError) as error:
        if isinstance(error, MessageError):
            raise
        raise BadArguments(str(error), fix="The job is as it was.") from error
    return {"id": wanted.name, "changed": list(changed)}


def _bury(wanted: Wanted) -> Data:
    return _each(wanted, "buried", lambda id: wanted.control.bury(id, wanted.reason, by=wanted.by))


def _complete(wanted: Wanted) -> Data:
    result = _carried(wanted.said["result"])
    return _each(
        wanted, "completed", lambda id: wanted.control.complete(id, result, reason=wanted.reason, by=wanted.by)
    )


def _carried(value: Any) -> Any:
    """value, which is to be what a job returned. Raises BadArguments where no job can return it."""
    try:
        encode_result(value)
    except TypeError as error:
        raise BadArguments(str(error), fix="Nothing was done.") from error
    return value


def _delete(wanted: Wanted) -> Data:
    return _each(wanted, "deleted", lambda id: wanted.control.delete(id, reason=wanted.reason, by=wanted.by))


def _revoke(wanted: Wanted) -> Data:
    before = known_job(wanted.control, wanted.name)
    if not wanted.control.revoke(wanted.name, interrupt=wanted.said["interrupt"], reason=wanted.reason, by=wanted.by):
        raise NotRepaired(f"job {wanted.name} is {before.state.value} and can't be revoked")
    job = wanted.control.job(wanted.name)
    return {"id": wanted.name, "revoked": True, "state": "" if job is None else job.state.value}


def _revoke_all(wanted: Wanted) -> Data:
    def revoke(id: str) -> None:
        if not wanted.control.revoke(id, interrupt=wanted.said["interrupt"], reason=wanted.reason, by=wanted.by):
            raise NotRepaired("it has ended, lies buried, or is not known")

    return _each(wanted, "revoked", revoke)


def _each(wanted: Wanted, done: str, do: Callable[[str], object]) -> Data:
    """Do it to each job that is meant, whatever becomes of the others; one alone that is refused is an error."""
    ids = list(dict.fromkeys(wanted.said.get("ids") or [wanted.name]))
    refused: dict[str, str] = {}
    for id in ids:
        try:
            do(id)
        except NotRepaired as error:
            if "ids" not in wanted.said:
                raise
            refused[id] = error.message
    return schema.acted(done, [id for id in ids if id not in refused], refused)


# Workers and effects.


def _retire(wanted: Wanted) -> Data:
    if not wanted.control.retire(wanted.name, now=wanted.said["now"], reason=wanted.reason, by=wanted.by):
        raise NotFound(f"there is no worker {wanted.name!r}", fix="kq workers ls names them.")
    return {"name": wanted.name, "retired": True, "now": wanted.said["now"]}


def _set(wanted: Wanted) -> Data:
    changes = [each for each in wanted.said["queues"].replace(",", " ").split() if each]
    wanted.control.set_worker(
        wanted.name, concurrency=wanted.said["concurrency"], queues=changes, reason=wanted.reason, by=wanted.by
    )
    worker, heard = after_set(wanted.control, wanted.name)
    return schema.size(wanted.name, worker, heard=heard)


def _ping(wanted: Wanted) -> Data:
    return schema.ping(wanted.control.ping(), wanted.control.workers())


def _lift(wanted: Wanted) -> Data:
    return schema.effect(wanted.control.lift_effect(wanted.name, reason=wanted.reason, by=wanted.by))


ACTS = (
    Act("/queues/{name}/pause", "queues pause", "operate", "Let no job of the queue start.", _pause, (REASON,)),
    Act("/queues/{name}/resume", "queues resume", "operate", "Let its jobs start again.", _resume, (REASON,)),
    Act(
        "/queues/{name}/purge",
        "queues purge",
        "edit",
        "End all jobs that wait in the queue, for good.",
        _purge,
        (Field("buried", "flag", "Those that lie buried from it, instead.", False), REASON),
    ),
    Act(
        "/queues/{name}/rm",
        "queues rm",
        "edit",
        "Remove the queue, which is empty and served by no worker.",
        _remove_queue,
        (REASON,),
    ),
    Act("/types/{name}/pause", "queues pause", "operate", "Let no job of the type start.", _pause_type, (REASON,)),
    Act("/types/{name}/resume", "queues resume", "operate", "Let them start again.", _resume_type, (REASON,)),
    Act(
        "/jobs",
        "submit",
        "edit",
        "Submit a job.",
        _submit,
        (
            Field("type", "text", "The name of its job type.", must=True),
            Field("args", "json", "Its arguments, a list.", []),
            Field("kwargs", "json", "Its named arguments, an object.", {}),
            Field("queue", "text", "Its queue, also for a type that the application lacks."),
            Field("priority", "number", "0 (low) to 9 (high).", least=LOWEST, most=HIGHEST),
            Field("delay", "duration", "Run it later."),
            Field("unique", "text", "While a job with this key waits or runs, submit no other."),
            REASON,
        ),
    ),
    Act(
        "/jobs/kick",
        "jobs kick",
        "operate",
        "Put buried jobs back into their queues.",
        _kick,
        (
            Field("ids", "texts", "Only these.", []),
            *CHOICE,
            Field("all", "flag", "All that lie buried.", False),
            Field("limit", "number", "At most so many, the first in order.", least=1),
            Field("rate", "text", "So many in a second, a minute or an hour: 10/s, 100/m, 500/h.", ""),
            Field("first", "number", "So many first, and the rest when they have ended.", least=1),
            Field("stop_on_same_failure", "flag", "With first: not if one of them fails as before.", False),
            Field("wait", "duration", "With first: how long; at most 5m with all that follows.", 60.0),
            Field("dry_run", "flag", "Only say which.", False),
            _ANSWER,
            _OUTCOME,
            REASON,
        ),
        _takes_its_time,
    ),
    Act("/jobs/bury", "jobs bury", "operate", "Set jobs aside that wait or are delayed.", _bury, (_IDS, REASON)),
    Act(
        "/jobs/revoke",
        "jobs revoke",
        "operate",
        "End jobs: they do not start, and do not run again.",
        _revoke_all,
        (_IDS, Field("interrupt", "flag", "Those that run are interrupted too.", False), REASON),
    ),
    Act(
        "/jobs/rm",
        "jobs rm",
        "edit",
        "End jobs for good that are buried or wait.",
        _delete,
        (_IDS, REASON),
    ),
    Act(
        "/jobs/{name}/kick",
        "jobs kick",
        "operate",
        "Put the buried job back into its queue.",
        _kick_one,
        (_ANSWER, _OUTCOME, REASON),
    ),
    Act(
        "/jobs/{name}/edit",
        "jobs edit",
        "edit",
        "Change the job, which is buried or waits; it stays where it is. What is shown as *** stays as it is.",
        _edit,
        (
            Field("args", "json", "All of its arguments."),
            Field("kwargs", "json", "All of its named arguments."),
            Field("priority", "number", "0 (low) to 9 (high).", least=LOWEST, most=HIGHEST),
            Field("delay", "duration", "From now on, for one that is delayed."),
            Field("version", "text", "Of the job as it was looked at: one that has changed since stays as it is."),
            Field("unchecked", "flag", "Also when the application does not know its type.", False),
            REASON,
        ),
    ),
    Act("/jobs/{name}/bury", "jobs bury", "operate", "Set the job aside.", _bury, (REASON,)),
    Act(
        "/jobs/{name}/revoke",
        "jobs revoke",
        "operate",
        "End the job: it does not start, and does not run again.",
        _revoke,
        (Field("interrupt", "flag", "If it runs, interrupt it.", False), REASON),
    ),
    Act(
        "/jobs/{name}/complete",
        "jobs complete",
        "edit",
        "End the buried job with a result, as if it had run.",
        _complete,
        (Field("result", "json", "What it is to have returned."), REASON),
    ),
    Act(
        "/jobs/{name}/rm",
        "jobs rm",
        "edit",
        "End the job for good, which is buried or waits.",
        _delete,
        (REASON,),
    ),
    Act(
        "/workers/{name}/set",
        "workers set",
        "operate",
        "Change how many jobs the worker runs at a time, or which queues it takes, as long as it lives.",
        _set,
        (
            Field("concurrency", "number", "So many at a time.", least=1, most=SLOTS),
            Field("queues", "text", "Queues that it takes too, or takes no more: +bulk, +bulk:2, -mail.", ""),
            REASON,
        ),
        lambda said: True,
    ),
    Act("/workers/ping", "workers ping", "operate", "Ask each worker that lives whether it listens.", _ping),
    Act(
        "/workers/{name}/retire",
        "workers retire",
        "operate",
        "Take the worker out of commission: it finishes what runs, gives back the rest and ends.",
        _retire,
        (Field("now", "flag", "Do not wait for it: its jobs go to others at once.", False), REASON),
    ),
    Act(
        "/effects/{name}/lift",
        "effects lift",
        "edit",
        "Forget an effect, so that it may happen again.",
        _lift,
        (REASON,),
    ),
)
