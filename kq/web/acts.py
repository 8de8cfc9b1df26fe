"""What may be done, as a table: the page's forms, the API and its description are made of it.

Each act says by whom it was done; control writes that into the audit before anything is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Any, TypeAlias

from kq.clock import new_id
from kq.control import Control, schema
from kq.control.kicking import Kicking
from kq.control.size import MOST as WORKER_MOST
from kq.control.veil import Veil
from kq.control.view import known_job
from kq.credential import Role
from kq.errors import BadArguments, MessageError, NotFound, NotRepaired
from kq.units import format_duration, parse_rate
from kq.values.job import HIGHEST, LOWEST, Job, Settings
from kq.values.message import encode_result
from kq.web.choosing import CHOICE, buried
from kq.web.fields import Field, Said

Data: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Deed:
    """One act, as somebody asked for it. name: of what the path names. said: all fields. by: who.

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
    do: Callable[[Deed], Data]
    fields: tuple[Field, ...] = field(default=())
    slow: Callable[[Said], bool] = lambda said: False


#: Seconds that a worker has to hear what was ordered about it.
HEARS = 5.0
#: Seconds that one request may take.
LONGEST = 300.0
REASON = Field("reason", "text", "Why; it is kept in the audit, and in a job's history.", "")
_IDS = Field("ids", "texts", "The jobs.", must=True)
_ANSWER = Field("answer", "text", "What a human found out about its side effects.", choices=("done", "repeat"))
_OUTCOME = Field("outcome", "json", "With answer=done: what came of it.")


# Queues and job types.


def _pause(deed: Deed) -> Data:
    must_know_queue(deed.control, deed.name)
    deed.control.pause(deed.name, reason=deed.reason, by=deed.by)
    return _told(deed.control, paused=f"queue {deed.name}")


def _resume(deed: Deed) -> Data:
    deed.control.resume(deed.name, reason=deed.reason, by=deed.by)
    return _told(deed.control, resumed=f"queue {deed.name}")


def _pause_type(deed: Deed) -> Data:
    deed.control.pause_type(deed.name, reason=deed.reason, by=deed.by)
    return _told(deed.control, paused=f"type {deed.name}")


def _resume_type(deed: Deed) -> Data:
    back = deed.control.resume_type(deed.name, reason=deed.reason, by=deed.by)
    return _told(deed.control, resumed=f"type {deed.name}", back=back)


def _purge(deed: Deed) -> Data:
    must_know_queue(deed.control, deed.name)
    ended = deed.control.purge(deed.name, buried=deed.said["buried"], reason=deed.reason, by=deed.by)
    return {"queue": deed.name, "purged": ended}


def _remove_queue(deed: Deed) -> Data:
    must_know_queue(deed.control, deed.name)
    deed.control.remove_queue(deed.name, reason=deed.reason, by=deed.by)
    return {"queue": deed.name, "removed": True}


def _told(control: Control, **data: object) -> Data:
    return {**data, "heard": control.ping(), "workers": [worker.name for worker in control.workers()]}


def must_know_queue(control: Control, queue: str) -> None:
    """Raise NotFound when there is no such queue."""
    if queue not in control.queue_names():
        raise NotFound(f"there is no queue {queue!r}", fix="kq queues ls names them.")


# Jobs.


def _submit(deed: Deed) -> Data:
    said, app = deed.said, deed.control.app
    args, kwargs = said["args"], said["kwargs"]
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise BadArguments("args is a list and kwargs an object")
    known = app.jobs.get(said["type"])
    if known is None and app.jobs and said["queue"] is None:
        raise NotFound(
            f"app {app.name!r} has no job type {said['type']!r}", fix="Say in which queue a type belongs that it lacks."
        )
    options = {name: said[name] for name in ("queue", "priority", "delay", "unique")}
    try:
        if known is None:
            job: Job[Any] = Job(new_id(), said["type"], tuple(args), kwargs, Settings(**options).over(app.defaults))
        else:
            job = known.options(**options).job(*args, **kwargs)
    except (TypeError, ValueError) as error:
        raise BadArguments(str(error), fix="Nothing was submitted.") from error
    handle = deed.control.submit(job, reason=deed.reason, by=deed.by)
    return {"id": handle.id, "type": job.type, "queue": handle.queue}


def _kick(deed: Deed) -> Data:
    return _kicked(deed, deed.said["ids"])


def _kick_one(deed: Deed) -> Data:
    return _kicked(deed, [deed.name])


def _kicked(deed: Deed, ids: Iterable[str]) -> Data:
    """Kick what is meant; what is in doubt with the answer that was given."""
    said, ids = deed.said, list(ids)
    chooses = [said[each.name] for each in CHOICE if each.name in said]
    if not ids and not any(chooses) and not said.get("all"):
        raise BadArguments("it is not said which jobs are meant", fix="Say ids, queue, type, error, search or all.")
    choice = {each.name: said.get(each.name, each.usual) for each in CHOICE}
    jobs = {job.id: job for job in buried(deed.control, deed.veil, choice, ids, said.get("limit"))}
    if said.get("dry_run"):
        return {"would_kick": list(jobs)}
    refused = {id: "it is not buried" for id in ids if id not in jobs}
    kicking = Kicking(
        deed.control,
        reason=deed.reason,
        by=deed.by,
        answer=said["answer"],
        outcome=_carried(said["outcome"]),
        over=deed.over,
    )
    kicking.run(list(jobs.values()), **_pace(said, len(jobs)))
    refused |= kicking.refused
    stopped = kicking.stopped or None
    return {"kicked": kicking.kicked, "refused": _why(refused), "stopped": stopped, "left": kicking.left}


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


def _edit(deed: Deed) -> Data:
    said, control = deed.said, deed.control
    job = known_job(control, deed.name)
    args, kwargs = said["args"], said["kwargs"]
    if not isinstance(args, list | None) or not isinstance(kwargs, dict | None):
        raise BadArguments("args is a list and kwargs an object", fix="The job is as it was.")
    try:
        args, kwargs = deed.veil.whole(control, job, args, kwargs)
        changed = control.edit(
            deed.name,
            args=args,
            kwargs=kwargs,
            priority=said["priority"],
            delay=said["delay"],
            version=said["version"] or job.version,
            unchecked=said["unchecked"],
            reason=deed.reason,
            by=deed.by,
        )
    except (TypeError, ValueError) as error:
        if isinstance(error, MessageError):
            raise
        raise BadArguments(str(error), fix="The job is as it was.") from error
    return {"id": deed.name, "changed": list(changed)}


def _bury(deed: Deed) -> Data:
    return _each(deed, "buried", lambda id: deed.control.bury(id, deed.reason, by=deed.by))


def _complete(deed: Deed) -> Data:
    result = _carried(deed.said["result"])
    return _each(deed, "completed", lambda id: deed.control.complete(id, result, reason=deed.reason, by=deed.by))


def _carried(value: Any) -> Any:
    """value, which is to be what a job returned. Raises BadArguments where no job can return it."""
    try:
        encode_result(value)
    except TypeError as error:
        raise BadArguments(str(error), fix="Nothing was done.") from error
    return value


def _delete(deed: Deed) -> Data:
    return _each(deed, "deleted", lambda id: deed.control.delete(id, reason=deed.reason, by=deed.by))


def _revoke(deed: Deed) -> Data:
    before = known_job(deed.control, deed.name)
    if not deed.control.revoke(deed.name, interrupt=deed.said["interrupt"], reason=deed.reason, by=deed.by):
        raise NotRepaired(f"job {deed.name} is {before.state.value} and can't be revoked")
    job = deed.control.job(deed.name)
    return {"id": deed.name, "revoked": True, "state": "" if job is None else job.state.value}


def _revoke_all(deed: Deed) -> Data:
    def revoke(id: str) -> None:
        if not deed.control.revoke(id, interrupt=deed.said["interrupt"], reason=deed.reason, by=deed.by):
            raise NotRepaired("it has ended, lies buried, or is not known")

    return _each(deed, "revoked", revoke)


def _each(deed: Deed, done: str, do: Callable[[str], object]) -> Data:
    """Do it to each job that is meant, whatever becomes of the others; one alone that is refused is an error."""
    ids = list(dict.fromkeys(deed.said.get("ids") or [deed.name]))
    refused: dict[str, str] = {}
    for id in ids:
        try:
            do(id)
        except NotRepaired as error:
            if "ids" not in deed.said:
                raise
            refused[id] = error.message
    return {done: [id for id in ids if id not in refused], "refused": _why(refused)}


def _why(refused: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"id": id, "reason": reason} for id, reason in refused.items()]


# Workers and effects.


def _retire(deed: Deed) -> Data:
    if not deed.control.retire(deed.name, now=deed.said["now"], reason=deed.reason, by=deed.by):
        raise NotFound(f"there is no worker {deed.name!r}", fix="kq workers ls names them.")
    return {"name": deed.name, "retired": True, "now": deed.said["now"]}


def _set(deed: Deed) -> Data:
    changes = [each for each in deed.said["queues"].replace(",", " ").split() if each]
    deed.control.set_worker(
        deed.name, concurrency=deed.said["concurrency"], queues=changes, reason=deed.reason, by=deed.by
    )
    heard = deed.name in deed.control.answering([deed.name], HEARS)
    worker = next((each for each in deed.control.workers() if each.name == deed.name), None)
    return schema.size(deed.name, worker, heard=heard)


def _ping(deed: Deed) -> Data:
    answered = deed.control.ping()
    return {
        "answered": answered,
        "silent": sorted({worker.name for worker in deed.control.workers()} - set(answered)),
    }


def _lift(deed: Deed) -> Data:
    return schema.effect(deed.control.lift_effect(deed.name, reason=deed.reason, by=deed.by))


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
            Field("concurrency", "number", "So many at a time.", least=1, most=WORKER_MOST),
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
