"""What control writes down for those who look: the last minutes, and what lies buried for what.

Whoever makes the rounds does it, so once for all. Both are small and of a bounded size; a snapshot reads them with the
rest.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from heapq import nlargest

from kq.broker import BURIED, Inspector, Load
from kq.control.arrivals import Arrivals
from kq.control.compose import FAMILIES, Facts, jobs_of
from kq.control.sight import JobInfo, info_of
from kq.state.store import Write
from kq.values import tally
from kq.values.reading import reader
from kq.values.record import GROUPS, HISTORY, encode
from kq.values.redaction import redacted_text
from kq.values.snapshot import FailureRow, History, Point
from kq.values.tally import Tally, Work, quantile

log = logging.getLogger("kq.control")

#: Seconds between two points, and how many there are: ten minutes.
STEP, POINTS = 10.0, 60
#: So many queues have a history of their own, those with the most jobs; and of so many it is counted what came.
QUEUES, SENT = 100, 1000
#: So many buried jobs of each queue are looked at.
MOST = 1000
#: Seconds after which what nobody renews is gone.
KEEP = 900.0

_read = reader(History)


class Chronicle:
    """Writes it down, step by step."""

    def __init__(self) -> None:
        self._counted: dict[str, Tally] = {}
        self._arrivals = Arrivals()
        self._buried: dict[str, int] = {}
        self._groups: dict[str, list[FailureRow]] = {}
        self._aside = set[str]()
        self._next = 0.0

    def is_due(self, now: float) -> bool:
        """Whether it is time for the next step. now: by the store's clock."""
        return now >= self._next

    def writes(self, facts: Facts, inspector: Inspector) -> list[Write]:
        """What is to be written in this step."""
        self._next = facts.now + STEP
        if facts.loads is not None:
            self._tell_set_aside(facts.loads)
        self._count_buried(facts.loads or {}, inspector)
        groups = [row for rows in self._groups.values() for row in rows]
        history = self._history(facts)
        return [Write(HISTORY, encode(history), KEEP), Write(GROUPS, encode(groups), KEEP)]

    def _tell_set_aside(self, loads: Mapping[str, Load]) -> None:
        """Log once for each queue that it has unreadable entries, and again when they were removed and others come."""
        for name, load in loads.items():
            if load.aside and name not in self._aside:
                text = "queue %s: entries that can't be read were set aside (%d), it goes on; kq doctor says where"
                log.warning(text, name, load.aside)
        self._aside = {name for name, load in loads.items() if load.aside}

    # The last minutes.

    def _history(self, facts: Facts) -> History:
        found = facts.found or dict[str, Mapping[str, bytes]].fromkeys(FAMILIES, {})
        written = found["control:"].get(HISTORY)
        before = _read(written) or History(step=STEP)
        tallies = {key: tally.decode(value) for key, value in found["tally:"].items()}
        rates = self._rates({key: told for key, told in tallies.items() if told is not None})
        jobs = jobs_of(facts.loads or {})
        total = _point(facts.now, [each for rows in rates.values() for each in rows], sum(jobs.values()), before.total)
        queues = {
            name: (*before.queues.get(name, ())[1 - POINTS :], point)
            for name in jobs.keys() | rates.keys()
            if (point := _point(facts.now, rates.get(name, []), jobs.get(name, 0), before.queues.get(name, ())))
        }
        busiest = sorted(queues, key=lambda name: (queues[name][-1].jobs, queues[name][-1].ended), reverse=True)
        return History(
            step=STEP,
            total=(*before.total[1 - POINTS :], total),
            queues={name: queues[name] for name in sorted(busiest[:QUEUES])},
            sent=self._sent(before.sent, jobs, rates),
        )

    def _sent(
        self, before: Mapping[str, int], jobs: Mapping[str, int], rates: Mapping[str, list[tuple[Work, float]]]
    ) -> dict[str, int]:
        """How many jobs have come to each queue; of those with the most of them."""
        left = {name: sum(work.gone for work, _ in done) for name, done in rates.items()}
        counted = self._arrivals.count(before, jobs, left)
        return {name: counted[name] for name in sorted(nlargest(SENT, counted, key=counted.__getitem__))}

    def _rates(self, tallies: Mapping[str, Tally]) -> dict[str, list[tuple[Work, float]]]:
        """What was done since the last step, and in how many seconds, by queue."""
        done: defaultdict[str, list[tuple[Work, float]]] = defaultdict(list)
        for key, now in tallies.items():
            before = self._counted.get(key)
            known = {} if before is None else {(work.queue, work.type): work for work in before.work}
            seconds = now.at - (now.began if before is None else before.at)
            if seconds > 0:
                for work in tally.since(now.work, known):
                    done[work.queue].append((work, seconds))
        self._counted = dict(tallies)
        return done

    # What lies buried.

    def _count_buried(self, loads: Mapping[str, Load], inspector: Inspector) -> None:
        """Look at the buried jobs of queues that have more or fewer of them than when they were looked at."""
        buried = {name: load.ready for name, load in loads.items() if name.endswith(BURIED)}
        for name in self._groups.keys() - buried.keys():
            del self._groups[name]
        for name, number in buried.items():
            if self._buried.get(name, 0) != number:
                jobs = map(info_of, inspector.browse(name, "ready", MOST)) if number else ()
                self._groups[name] = list(_groups(jobs))
        self._buried = buried


def _point(now: float, done: list[tuple[Work, float]], jobs: int, before: tuple[Point, ...]) -> Point:
    ended = sum(tally.rate(work.gone, seconds) for work, seconds in done)
    last = before[-1] if before else None
    came = None if last is None or now <= last.at else max(0.0, ended + (jobs - last.jobs) / (now - last.at))
    return Point(
        at=now,
        came=came,
        ended=ended,
        failed=sum(tally.rate(work.failed, seconds) for work, seconds in done),
        wait_p95=quantile((work.waited for work, _ in done), 0.95),
        jobs=jobs,
    )


def _groups(jobs: Iterable[JobInfo]) -> Iterable[FailureRow]:
    """Buried jobs by what they are buried for."""
    latest: dict[tuple[str, str, str, str], JobInfo] = {}
    number: Counter[tuple[str, str, str, str]] = Counter()
    for job in jobs:
        failure = job.failure
        key = job.queue, failure.type, failure.exception, failure.place
        number[key] += 1
        if key not in latest or (job.buried or 0.0) >= (latest[key].buried or 0.0):
            latest[key] = job
    for key, job in latest.items():
        queue, type, exception, place = key
        yield FailureRow(
            type=type,
            queue=queue,
            exception=redacted_text(exception),
            place=place,
            message=redacted_text(job.error),
            buried=number[key],
            last=job.buried or 0.0,
            job=job.id,
        )
