"""A snapshot, put together from what the broker and the state store said. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from msgspec.structs import replace

from kq.broker import BURIED, PARKED, Load, holds_jobs, home_of
from kq.control.sight import Health, Heartbeat, WorkerInfo
from kq.handles import duplicate
from kq.handles.standing import Kind, decode_order, order_key
from kq.values import tally
from kq.values.reading import reader, text
from kq.values.record import GROUPS, HISTORY, SEAT, lease_key
from kq.values.snapshot import (
    DoubtRow,
    FailedRow,
    FailureRow,
    HeldRow,
    History,
    Paused,
    QueueRow,
    QueueState,
    RunningRow,
    SingletonRow,
    Snapshot,
    Totals,
    WorkerRow,
    WorkerState,
)
from kq.values.tally import MINUTE, Tally, Work, quantile, rate

#: What is read of the state store, by family: workers, their leases and tallies, pauses, doubts, control's own, and who
#: found unique keys held.
FAMILIES = ("worker:", "lease:", "tally:", "order:pause", "doubt:", "control:", duplicate.FAMILY)
#: So many groups of failures are shown, so many of the latest failures, and so many doubts.
FAILURES, LATEST, DOUBTS = 100, 50, 100
#: A queue grows when more than this many times as much comes as goes.
GROWING = 1.05

#: Work of the last minute, and the seconds in which it was done.
Recent: TypeAlias = Sequence[tuple[Work, float]]
_read_history = reader(History)
_read_groups = reader(tuple[FailureRow, ...])
_read_worker = reader(WorkerInfo)


@dataclass(frozen=True, slots=True)
class Earlier:
    """How many jobs each queue had, ready or not, at some earlier time."""

    at: float = 0.0
    jobs: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Facts:
    """What was read. loads: by queue; found: by family. None where nobody answered. declared: the app's own queues;
    singletons: those of them of which one job runs at a time.
    """

    now: float
    loads: Mapping[str, Load] | None
    found: Mapping[str, Mapping[str, bytes]] | None
    declared: Iterable[str] = ()
    singletons: Container[str] = ()
    earlier: Earlier = Earlier()


def compose(facts: Facts) -> Snapshot:
    """All that facts tell."""
    found = facts.found or dict[str, Mapping[str, bytes]].fromkeys(FAMILIES, {})
    beats = beats_of(found["worker:"].values(), found["lease:"], facts.now)
    tallies = [told for value in found["tally:"].values() if (told := tally.decode(value)) is not None]
    control, paused = found["control:"], dict(_paused(found["order:pause"], Kind.PAUSE))
    history = _read_history(control.get(HISTORY)) or History()
    rows = _Queues(facts, beats, tallies, paused, _earlier(facts, history))
    queues = tuple(rows.row(name) for name in sorted(names_of(facts.loads or {}) | set(facts.declared) | rows.served))
    held: defaultdict[str, list[HeldRow]] = defaultdict(list)
    for each in (each for row in queues for each in row.held_by):
        held[each.worker].append(each)
    return Snapshot(
        at=facts.now,
        control=text(control.get(SEAT, b"")),
        totals=_totals(queues, beats, rows.all, tallies),
        queues=queues,
        workers=tuple(_worker(beat, held[beat.worker.name]) for beat in beats),
        failures=tuple(_failures(tallies, control.get(GROUPS))),
        recent=tuple(_latest(tallies)),
        singletons=tuple(_singletons(queues, beats)),
        paused=tuple(row for _, row in _paused(found["order:pause"], Kind.PAUSE_TYPE)),
        doubts=tuple(_doubts(found["doubt:"]))[:DOUBTS],
        doubtful=len(found["doubt:"]),
        history=history,
        missing=tuple(_missing(facts, control)),
    )


def beats_of(records: Iterable[bytes], leases: Iterable[str], now: float) -> list[Heartbeat]:
    """Workers by name, as they described themselves, and how their hearts beat. leases: the keys of those that hold."""
    alive, beats = set(leases), []
    for worker in filter(None, map(_read_worker, records)):
        age = max(0.0, now - worker.beat)
        late = Health.LATE if age > worker.lease / 2 else Health.ALIVE
        beats.append(Heartbeat(worker, late if lease_key(worker.name) in alive else Health.DEAD, age))
    return sorted(beats, key=lambda beat: beat.worker.name)


def jobs_of(loads: Mapping[str, Load]) -> dict[str, int]:
    """How many jobs each queue has, but for those that lie buried."""
    found: Counter[str] = Counter()
    for name, load in loads.items():
        if holds_jobs(name) and not name.endswith(BURIED):
            found[home_of(name)] += load.ready + load.delayed + load.held
    return dict(found)


def _earlier(facts: Facts, history: History) -> Earlier:
    """The oldest look of the last minute, be it our own or control's."""
    points = [point.at for point in history.total if facts.now - point.at <= MINUTE]
    if not points or (facts.earlier.at and facts.earlier.at <= points[0]):
        return facts.earlier
    first = points[0]
    jobs = {name: point.jobs for name, told in history.queues.items() for point in told if point.at == first}
    return Earlier(first, jobs)


def names_of(queues: Iterable[str]) -> set[str]:
    """The queues that jobs may be in, or buried from. queues: those that the broker has."""
    return {home_of(name) for name in queues if holds_jobs(name)}


# Queues.


class _Queues:
    """What there is to know of queues, by queue."""

    def __init__(
        self,
        facts: Facts,
        beats: Sequence[Heartbeat],
        tallies: Sequence[Tally],
        paused: Mapping[str, Paused],
        earlier: Earlier,
    ) -> None:
        self._facts, self._loads, self._paused, self._earlier = facts, facts.loads or {}, paused, earlier
        self._beats = beats
        self._live = [beat.worker for beat in beats if beat.health is not Health.DEAD]
        self._running = Counter(job.queue for worker in self._live for job in worker.running)
        self._recent: defaultdict[str, list[tuple[Work, float]]] = defaultdict(list)
        self._returning: Counter[str] = Counter()
        self._known = facts.found is not None
        self._duplicates = duplicate.by_queue((facts.found or {}).get(duplicate.FAMILY, {}))
        for each in tallies:
            age = max(0.0, facts.now - each.at)
            for work in each.recent if age < MINUTE else ():
                self._recent[work.queue].append((work, each.span + age))
            for queue, due in each.returning.items():
                self._returning[queue] += sum(number for moment, number in due if moment > facts.now)

    @property
    def served(self) -> set[str]:
        """The queues that living workers take jobs from."""
        return {name for worker in self._live for name in worker.queues}

    @property
    def all(self) -> Recent | None:
        """What was done in the last minute, in all queues; None when nobody knows."""
        return [each for recent in self._recent.values() for each in recent] if self._known else None

    def row(self, name: str) -> QueueRow:
        load, recent = self._loads.get(name, Load()), self._recent[name]
        buried, parked = (self._loads.get(name + aside, Load()).ready for aside in (BURIED, PARKED))
        serving = [worker for worker in self._live if name in worker.queues and not worker.stopping]
        ended = _rate_of(recent, "gone") if self._known else None
        came = self._came(name, ended)
        row = QueueRow(
            name=name,
            ready=load.ready,
            delayed=load.delayed,
            retrying=min(self._returning[name], load.delayed) if self._known else None,
            held=load.held,
            running=self._running[name],
            held_by=held_by(name, load.held - self._running[name], self._beats),
            buried=buried,
            parked=parked,
            oldest=load.oldest if self._facts.loads is not None else None,
            wait_p50=quantile((work.waited for work, _ in recent), 0.5),
            wait_p95=quantile((work.waited for work, _ in recent), 0.95),
            run_p50=quantile((work.ran for work, _ in recent), 0.5),
            run_p95=quantile((work.ran for work, _ in recent), 0.95),
            came=came,
            ended=ended,
            failed=_rate_of(recent, "failed") if self._known else None,
            burials=_rate_of(recent, "buried") if self._known else None,
            degraded=_degraded(recent),
            duplicates=self._duplicates.get(name, {}),
            drain=_drain(load.ready, came, ended),
            paused=self._paused.get(name),
            workers=len(serving),
            slots=sum(min(worker.queues[name], worker.slots) for worker in serving),
            holder=holder_of(name, self._live),
        )
        return replace(row, state=_state(row), singleton=load.single or name in self._facts.singletons)

    def _came(self, name: str, ended: float | None) -> float | None:
        """Jobs a second that were submitted: those that left, and those that are more by now."""
        earlier, span = self._earlier, self._facts.now - self._earlier.at
        if ended is None or self._facts.loads is None or span < 1.0 or not earlier.at:
            return None
        more = jobs_of(self._loads).get(name, 0) - earlier.jobs.get(name, 0)
        return max(0.0, ended + more / span)


def _rate_of(recent: Recent, what: str) -> float:
    return sum(rate(getattr(work, what), seconds) for work, seconds in recent)


def _degraded(recent: Recent) -> float | None:
    completed = sum(work.completed for work, _ in recent)
    return sum(work.degraded for work, _ in recent) / completed if completed else None


def _drain(ready: int, came: float | None, ended: float | None) -> float | None:
    if not ready:
        return 0.0
    less = ended - came if ended is not None and came is not None else 0.0
    return ready / less if less > 0 else None


def holder_of(queue: str, workers: Iterable[WorkerInfo]) -> str:
    """The worker that has the seat of a queue. Who has just lost it may say that he has it: the latest word counts."""
    seated = [(worker.beat, worker.name) for worker in workers if queue in worker.singletons]
    return max(seated)[1] if seated else ""


def _state(row: QueueRow) -> QueueState:
    if row.paused is not None:
        return "paused"
    if not row.workers:
        return "unserved" if row.ready or row.unbegun else "ok"
    if not row.ready:
        return "busy" if row.held and not row.running else "ok"
    growing = row.came is not None and row.ended is not None and row.came > GROWING * row.ended
    return "growing" if growing else "busy"


def _paused(orders: Mapping[str, bytes], kind: Kind) -> Iterator[tuple[str, Paused]]:
    """Orders of one kind, by what they are about."""
    family = order_key(kind, "")
    for key in sorted(orders):
        if key.startswith(family):
            order, what = decode_order(orders[key]), key.removeprefix(family)
            if order is not None:
                yield what, Paused(what=what, at=order.at, by=order.by, reason=order.reason)


def _totals(
    queues: Iterable[QueueRow], beats: Sequence[Heartbeat], recent: Recent | None, tallies: Iterable[Tally]
) -> Totals:
    rows = list(queues)
    live = [beat.worker for beat in beats if beat.health is not Health.DEAD]
    known = recent is not None
    came = [row.came for row in rows if row.came is not None]
    oldest = [row.oldest for row in rows if row.oldest is not None]
    return Totals(
        ready=sum(row.ready for row in rows),
        delayed=sum(row.delayed for row in rows),
        retrying=sum(row.retrying or 0 for row in rows) if known else None,
        running=sum(len(worker.running) for worker in live),
        buried=sum(row.buried for row in rows),
        completed=sum(work.completed for told in tallies for work in told.work) if known else None,
        workers=len(live),
        known=len(beats),
        slots=sum(worker.slots for worker in live),
        came=sum(came) if came else None,
        ended=_rate_of(recent or (), "gone") if known else None,
        failed=_rate_of(recent or (), "failed") if known else None,
        burials=_rate_of(recent or (), "buried") if known else None,
        degraded=_degraded(recent or ()),
        oldest=max(oldest, default=None),
        wait_p95=quantile((work.waited for work, _ in recent or ()), 0.95),
    )


# Workers.


def _worker(beat: Heartbeat, held: Iterable[HeldRow]) -> WorkerRow:
    worker = beat.worker
    return WorkerRow(
        name=worker.name,
        host=worker.host,
        pid=worker.pid,
        state=_worker_state(beat),
        beat_age=beat.age,
        lease=worker.lease,
        lease_left=lease_left(beat),
        skew=worker.clock - worker.beat if worker.clock else None,
        started=worker.started,
        retired=worker.retired or None,
        code=worker.code,
        pool=worker.pool,
        slots=worker.slots,
        queues=worker.queues,
        executors=tuple(worker.executors),
        running=tuple(
            RunningRow(
                id=job.id,
                type=job.type,
                queue=job.queue,
                seconds=job.seconds + beat.age,
                limit=job.limit,
                executor=job.executor,
                progress=job.progress,
                arguments=job.arguments,
            )
            for job in worker.running
        ),
        held=tuple(held),
        rss=worker.rss,
        cpu=worker.cpu,
        ok=worker.ok,
        failed=worker.failed,
        singletons=tuple(worker.singletons),
    )


def held_by(queue: str, unbegun: int, beats: Iterable[Heartbeat]) -> tuple[HeldRow, ...]:
    """Who has those jobs of queue that do not run, by what living workers said; or who alone can have them."""
    if unbegun <= 0:
        return ()
    taking = [beat for beat in beats if beat.health is not Health.DEAD and queue in beat.worker.queues]
    told = tuple(
        HeldRow(worker=beat.worker.name, queue=queue, jobs=each.jobs, seconds=each.seconds + beat.age)
        for beat in taking
        for each in beat.worker.held
        if each.queue == queue
    )
    alone = taking if len(taking) == 1 else []
    return told or tuple(
        HeldRow(worker=beat.worker.name, queue=queue, jobs=unbegun, seconds=beat.age) for beat in alone
    )


def _worker_state(beat: Heartbeat) -> WorkerState:
    if beat.health is Health.DEAD:
        return "dead"
    return "stopping" if beat.worker.stopping else "late" if beat.health is Health.LATE else "alive"


def lease_left(beat: Heartbeat) -> float:
    """Seconds until the worker's jobs go to others, unless it beats before."""
    return 0.0 if beat.health is Health.DEAD else max(0.0, beat.worker.lease - beat.age)


def _singletons(queues: Iterable[QueueRow], beats: Sequence[Heartbeat]) -> Iterator[SingletonRow]:
    live = {beat.worker.name: lease_left(beat) for beat in beats if beat.health is not Health.DEAD}
    for row in queues:
        if row.singleton:
            yield SingletonRow(queue=row.name, holder=row.holder, lease_left=live.get(row.holder, 0.0))


# Failures.


def _failures(tallies: Iterable[Tally], counted: bytes | None) -> list[FailureRow]:
    """What failed alike, the latest first. counted: what control counted of those that lie buried."""
    groups: dict[tuple[str, str, str, str], FailureRow] = {}
    none = None if counted is None else 0
    for each in tallies:
        for one in each.groups:
            row = FailureRow(
                type=one.type,
                queue=one.queue,
                exception=one.exception,
                place=one.place,
                message=one.message,
                failed=one.number,
                buried=none,
                last=one.last,
                job=one.job,
            )
            _add(groups, row)
    for row in _read_groups(counted) or ():
        _add(groups, row)
    return sorted(groups.values(), key=lambda row: row.last, reverse=True)[:FAILURES]


def _add(groups: dict[tuple[str, str, str, str], FailureRow], row: FailureRow) -> None:
    """Add row to its group; what it says of the latest counts when it is later."""
    key = row.queue, row.type, row.exception, row.place
    known = groups.get(key)
    if known is not None:
        buried = None if row.buried is None and known.buried is None else (row.buried or 0) + (known.buried or 0)
        later = row if row.last >= known.last else known
        row = replace(later, failed=row.failed + known.failed, buried=buried)
    groups[key] = row


def _latest(tallies: Iterable[Tally]) -> list[FailedRow]:
    rows = [
        FailedRow(
            at=one.at,
            id=one.id,
            type=one.type,
            queue=one.queue,
            attempt=one.attempt,
            error=one.error,
            worker=each.worker,
            next=one.next,
            of=one.of,
        )
        for each in tallies
        for one in each.latest
    ]
    return sorted(rows, key=lambda row: row.at, reverse=True)[:LATEST]


def _doubts(listed: Mapping[str, bytes]) -> Iterator[DoubtRow]:
    """Effects in doubt, those of the latest jobs first."""
    for name in sorted(listed, reverse=True):
        yield DoubtRow(key=text(listed[name]), job=name.split(":")[1])


def _missing(facts: Facts, control: Mapping[str, bytes]) -> Iterator[str]:
    if facts.loads is None:
        yield "the broker does not answer: what is in the queues is not known"
    elif any(load.oldest is None for load in facts.loads.values()):
        yield "how long the oldest job waits is not known of each queue: who looks there now would disturb others"
    if facts.found is None:
        yield "the state store does not answer: workers, rates, failures and pauses are not known"
    elif SEAT not in control:
        yield "nobody makes control's rounds: no history, and nobody counts what lies buried for what (kq control)"
