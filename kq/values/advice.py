"""What is wrong, of all that a snapshot shows, and what to type next; the worst first. Pure.

One sentence and one command for each thing that a human has to do something about. What kq mends by itself is left out,
and so is what nobody knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from shlex import quote
from typing import Literal, TypeAlias

from kq.units import counted, format_duration, format_rate
from kq.values.snapshot import HeldRow, Paused, Progress, QueueRow, Snapshot, WorkerRow

#: Seconds by which two clocks may differ before times on screens mislead.
SKEW = 2.0
#: Of so many queues it is said one by one that they have buried jobs; of more together.
SINGLY = 3
#: What there is more to be seen of. buried: of the queue that is named, or of all.
Kind: TypeAlias = Literal["", "queue", "type", "worker", "effects", "buried"]


@dataclass(frozen=True, slots=True)
class Advice:
    """what: is wrong, in one sentence. command: to type next. kind, name: what it is about.

    grave: jobs do not run that should, or nobody knows what happened.
    """

    what: str
    command: str
    kind: Kind = ""
    name: str = ""
    grave: bool = False


def advice(shot: Snapshot) -> list[Advice]:
    """All that is to be said of shot."""
    said = [*_unreached(shot), *_queues(shot), *_paused_types(shot), *_workers(shot), *_clocks(shot)]
    return sorted([*said, *_set_aside(shot)], key=lambda each: not each.grave)


def _unreached(shot: Snapshot) -> Iterator[Advice]:
    if shot.absent:
        made = "a worker or the first submit makes one there, and --url or kq.yaml names one elsewhere"
        yield Advice(f"{shot.broker}; {made}", "kq dev", grave=True)
        return
    for what, why in (("broker", shot.broker), ("state store", shot.store)):
        if why:
            yield Advice(f"the {what} does not answer: {why}", "kq doctor", grave=True)


def _queues(shot: Snapshot) -> Iterator[Advice]:
    order = ["unserved", "paused", "growing"]
    for row in sorted((row for row in shot.queues if row.state in order), key=lambda row: order.index(row.state)):
        match row.state:
            case "unserved":
                what = f"no live worker takes queue {row.name}{_last_of(row, shot)}"
                command = f"kq worker -Q {quote(row.name)}"
                yield Advice(f"{what}; {_waiting(row)}", command, "queue", row.name, grave=True)
            case "paused":
                command = f"kq queues resume {quote(row.name)}"
                what = f"queue {row.name} is {_paused(row.paused)}; {_jobs(row.ready)} ready"
                yield Advice(what, command, "queue", row.name)
            case "growing":
                more = f"kq queues why {quote(row.name)}" if row.singleton else f"kq worker -Q {quote(row.name)}"
                yield Advice(_growing(row, shot), more, "queue", row.name, grave=True)
    for row in shot.queues:
        others = _others(row, shot)
        if row.unbegun and not row.running and row.state == "busy" and others:
            what = f"{_waiting(row)}: all that takes queue {row.name} is busy with jobs of {others}"
            yield Advice(what, f"kq worker -Q {quote(row.name)}", "queue", row.name)


def _last_of(row: QueueRow, shot: Snapshot) -> str:
    """Who took jobs of a queue that nobody takes any more."""
    gone = [worker for worker in shot.workers if worker.state == "dead" and row.name in worker.queues]
    last = min(gone, key=lambda worker: worker.beat_age, default=None)
    if last is None:
        return ""
    seat = " and had its seat" if row.name in last.singletons else ""
    return f", {last.name}, which took it{seat}, is dead"


def _paused(order: Paused | None) -> str:
    by = f" by {order.by}" if order is not None and order.by else ""
    reason = f" ({order.reason})" if order is not None and order.reason else ""
    return f"paused{by}{reason}"


def _waiting(row: QueueRow) -> str:
    """How many jobs of a queue wait: those that are ready, and those that workers have, or dead ones had."""
    if not row.unbegun:
        return f"{_jobs(row.ready)} ready"
    held = f"held{holders(row.held_by)} and {'has' if row.unbegun == 1 else 'have'} not begun"
    return f"{_jobs(row.ready)} ready, {_jobs(row.unbegun)} {held}" if row.ready else f"{_jobs(row.unbegun)} {held}"


def held(row: QueueRow) -> str:
    """Who has how many jobs of a queue that do not run: 2 held by w1 for 41s, or 2 held, where nobody said so."""
    return f"{row.unbegun:,} held{holders(row.held_by)}"


def waits(row: WorkerRow) -> list[str]:
    """What a worker has and does not run, of each queue: 2 of mail wait 41s."""
    return [
        f"{each.jobs:,} of {each.queue} wait{'s' * (each.jobs == 1)} {format_duration(each.seconds)}"
        for each in row.held
    ]


def says(said: Progress | None) -> str:
    """How far a job says it is: 3/10 page 3; "" when it said nothing."""
    if said is None:
        return ""
    done = f"{said.n:g}/{said.of:g}" if said.of else f"{said.n:g}"
    return f"{done} {said.text}" if said.text else done


def holders(rows: Iterable[HeldRow]) -> str:
    """The worker that has had some of them longest: ` by w1 for 41s`; "" where there are none."""
    longest = sorted(rows, key=lambda row: row.seconds, reverse=True)
    more = f" and by {counted(len(longest) - 1, 'other worker')}" if len(longest) > 1 else ""
    return f" by {longest[0].worker} for {format_duration(longest[0].seconds)}{more}" if longest else ""


def _growing(row: QueueRow, shot: Snapshot) -> str:
    times, span = (1, "second") if (row.came or 0) >= 0.1 else (60, "minute")
    come, go = (format_rate((number or 0) * times).removesuffix(".0") for number in (row.came, row.ended))
    rates = f"{come} jobs a {span} come and {go} go"
    busy = f"{row.running} busy with it"
    if row.running >= row.slots:
        busy = "all busy"
    elif others := _others(row, shot):
        busy = f"all busy, with jobs of {others} too" if row.running else f"all busy with jobs of {others}"
    slots = f"its workers run {counted(row.slots, 'job')} at once, {busy}"
    if row.singleton:
        runs = f"{row.holder} runs one job at a time" if row.holder else "nobody has the seat at the moment"
        slots = f"it is a singleton queue, of which {runs}"
    return f"queue {row.name} grows: {rates}, {_jobs(row.ready)} ready; {slots}"


def _others(row: QueueRow, shot: Snapshot) -> str:
    """The other queues whose jobs take all the room of the workers that take this one; "" where there is room."""
    taking = [worker for worker in shot.workers if worker.state in ("alive", "late") and row.name in worker.queues]
    if any(len(worker.running) < worker.slots for worker in taking):
        return ""
    return ", ".join(sorted({job.queue for worker in taking for job in worker.running} - {row.name}))


def _paused_types(shot: Snapshot) -> Iterator[Advice]:
    parked = sum(row.parked for row in shot.queues) if len(shot.paused) == 1 else 0  # of several, nobody says whose
    for order in shot.paused:
        what = f"jobs of type {order.what} are {_paused(order)}{f'; {_jobs(parked)} parked' if parked else ''}"
        yield Advice(what, f"kq queues resume --type {quote(order.what)}", "type", order.what)


def _workers(shot: Snapshot) -> Iterator[Advice]:
    served = {name for worker in shot.workers if worker.state != "dead" for name in worker.queues}
    taken = set(served)
    for worker in sorted(shot.workers, key=lambda worker: worker.beat_age):
        silent = f"it was last heard {format_duration(worker.beat_age)} ago (lease {format_duration(worker.lease)})"
        if worker.state == "dead":
            left = sorted(worker.queues.keys() - taken)
            taken |= worker.queues.keys()  # who died before it left nothing that this one did not
            if worker.retired and not left:
                continue  # others have what it had
            goes = "goes to others" if worker.queues.keys() <= served else "waits for a worker"
            then = f"nobody else takes {', '.join(left)}" if left else f"what it had {goes}"
            yield Advice(f"worker {worker.name} is dead: {silent}; {then}", _start(left), "worker", worker.name)
        elif worker.state == "late":
            yield Advice(f"worker {worker.name} is late: {silent}", "kq workers ping", "worker", worker.name)


def _clocks(shot: Snapshot) -> Iterator[Advice]:
    for host, seconds in clocks_off(shot).items():
        what = f"the clock of {host} and the state store's differ by {format_duration(abs(seconds))}"
        yield Advice(what, "kq doctor", "worker", host)


def clocks_off(shot: Snapshot) -> dict[str, float]:
    """The hosts of living workers whose clock is off, and by how many seconds it is ahead of the state store's."""
    live = (worker for worker in shot.workers if worker.state != "dead")
    return {worker.host: worker.skew for worker in live if worker.skew is not None and abs(worker.skew) > SKEW}


def _start(queues: list[str]) -> str:
    return f"kq worker -Q {quote(','.join(queues))}" if queues else "kq workers ls"


def _set_aside(shot: Snapshot) -> Iterator[Advice]:
    if shot.doubtful:
        what = "it" if shot.doubtful == 1 else "they"
        told = f"of {counted(shot.doubtful, 'side effect')} nobody knows whether {what} happened"
        yield Advice(told, "kq effects ls --stage doubt", "effects", grave=True)
    rows = [row for row in shot.queues if row.buried]
    if len(rows) > SINGLY:
        most, all = max(rows, key=lambda row: row.buried), sum(row.buried for row in rows)
        told = f"{all:,} jobs of {len(rows)} queues lie buried, most of them of {most.name} ({most.buried:,})"
        yield Advice(told, "kq jobs ls --group", "buried")
        return
    for row in rows:
        # Not of a failure that is tried again, be it the latest.
        kinds = (each.exception for each in shot.failures if each.queue == row.name and each.buried)
        latest = next((f", the latest for {exception}" for exception in kinds), "")
        lie = "lies" if row.buried == 1 else "lie"
        what = f"{counted(row.buried, 'job')} of queue {row.name} {lie} buried{latest}"
        yield Advice(what, f"kq jobs ls --queue {quote(row.name)} --group", "buried", row.name)


def _jobs(number: int) -> str:
    return "1 job is" if number == 1 else f"{number:,} jobs are"
