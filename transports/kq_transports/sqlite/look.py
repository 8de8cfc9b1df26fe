"""Looking at messages and leases without taking or changing anything."""

from __future__ import annotations

import json
from collections.abc import Sequence

from kq_transports.engine import DEPTH, Counts, Lease, Load, NotFound, Seen, State
from kq_transports.hostfile import Database, Reader, Row
from kq_transports.sqlite.moves import LOWEST

# What is due counts as ready, though its row moves only when somebody reserves. Parameters everywhere:
# the queue's name, and the clock's steady reading.
_QUEUE = "queue = (SELECT number FROM kq_queue WHERE name = :queue)"
# The same columns from each table: id, body, rank, state, count, due, holder, and seq to sort by.
_READY = f"""SELECT id, body, kq_ready.rank AS rank, 'ready', count, NULL AS due, '', seq
    FROM kq_ready JOIN kq_message USING (queue, seq) WHERE {_QUEUE}"""
_DUE = f"""SELECT id, body, kq_delayed.rank AS rank, 'ready', 0, NULL AS due, '', seq
    FROM kq_delayed JOIN kq_message USING (queue, seq) WHERE {_QUEUE} AND kq_delayed.due <= :now"""
_DELAYED = f"""SELECT id, body, kq_delayed.rank AS rank, 'delayed', 0, kq_delayed.due AS due, '', seq
    FROM kq_delayed JOIN kq_message USING (queue, seq) WHERE {_QUEUE} AND kq_delayed.due > :now"""
_HELD = f"""SELECT id, body, kq_held.rank AS rank, 'held', count, NULL AS due, name, seq
    FROM kq_held JOIN kq_message USING (queue, seq) LEFT JOIN kq_lease ON number = lease WHERE {_QUEUE}"""
_PAGE = "LIMIT :limit OFFSET :offset"
_BROWSE = {
    "ready": f"{_READY} UNION ALL {_DUE} ORDER BY rank, seq {_PAGE}",
    "delayed": f"{_DELAYED} ORDER BY due, seq {_PAGE}",
    "held": f"{_HELD} ORDER BY ticket {_PAGE}",
}
_OF_THESE = "AND id IN (SELECT value FROM json_each(:ids))"
_FIND = " UNION ALL ".join(f"{select} {_OF_THESE}" for select in (_READY, _DUE, _DELAYED, _HELD))
# Counting what is due stops at some number, for nobody else has to look at each: many fall due at
# once only while no worker runs.
_COUNTS = """SELECT name, ready, delayed, held,
    (SELECT count(*) FROM (SELECT 1 FROM kq_delayed WHERE queue = number AND due <= :now LIMIT 10000))"""
_COUNT = f"{_COUNTS} FROM kq_queue WHERE name = :queue"
# Since when the first of each rank are ready, and the first that is due and was not moved yet.
_SURVEY = f"""WITH ranks (rank) AS (VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)) {_COUNTS},
    (SELECT min((SELECT min(due) FROM (
        SELECT kq_message.due AS due FROM kq_ready JOIN kq_message USING (seq)
        WHERE kq_ready.queue = number AND kq_ready.rank = ranks.rank ORDER BY seq LIMIT {DEPTH}))) FROM ranks),
    (SELECT min(due) FROM kq_delayed WHERE queue = number AND due <= :now), single
    FROM kq_queue"""


def count(file: Database | Reader, queue: str) -> Counts:
    rows = file.read(_COUNT, {"queue": queue, "now": file.clock.steady()})
    if not rows:
        raise NotFound(f"there is no queue {queue!r}; declare it first")
    _, ready, delayed, held, due = rows[0]
    return Counts(ready + due, delayed - due, held)


def survey(file: Database | Reader) -> dict[str, Load]:
    now, loads = file.clock.steady(), dict[str, Load]()
    for name, ready, delayed, held, due, *since, single in file.read(_SURVEY, {"now": now}):
        first = min((moment for moment in since if moment is not None), default=now)
        loads[name] = Load(ready + due, delayed - due, held, max(0.0, now - first), bool(single))
    return loads


def browse(file: Database | Reader, queue: str, state: State, limit: int, offset: int) -> list[Seen]:
    page = {"queue": queue, "now": file.clock.steady(), "limit": limit, "offset": offset}
    return [_seen(file, queue, row) for row in file.read(_BROWSE[state], page)]


def find(file: Database | Reader, queue: str, ids: Sequence[str]) -> list[Seen]:
    these = {"queue": queue, "now": file.clock.steady(), "ids": json.dumps(ids)}
    return [_seen(file, queue, row) for row in file.read(_FIND, these)]


def _seen(file: Database | Reader, queue: str, row: Row) -> Seen:
    id, body, rank, state, count, due, holder, _ = row
    wall = None if due is None else file.clock.wall(due)
    return Seen(id, queue, body, LOWEST - rank, state, count, wall, holder or "")


def leases(file: Database | Reader) -> list[Lease]:
    rows = file.read(
        """SELECT name, until, count(ticket) FROM kq_lease LEFT JOIN kq_held ON lease = number
           GROUP BY number ORDER BY number"""
    )
    return [Lease(name, file.clock.wall_of_awake(until), held) for name, until, held in rows]
