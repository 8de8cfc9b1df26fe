"""The moves of a message: stored, taken, ended, given back. All within a transaction."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import msgspec

from kq_transports.engine import Action, Delivery, Full, Message, Swap, Verdict
from kq_transports.hostfile import Database
from kq_transports.sqlite.work import EVERYBODY, Queue, Work

#: A row that has just left kq_held: ticket, queue, rank, seq, count.
_Held: TypeAlias = tuple[int, int, int, int, int]

#: What comes to a queue: rows of kq_ready (queue, seq, rank), and of kq_delayed (the same, and due).
_Arrivals: TypeAlias = tuple[Queue, list[tuple[int, int, int]], list[tuple[int, int, int, float]]]

LOWEST = 9  # the rank of priority 0

#: Messages of one rank lie side by side in the file, for they are taken and ended together: each rank has so many
#: numbers of its own, 28 years of 10 000 a second should the last one never leave.
_NUMBERS = 1 << 43
#: The rank of most messages. Its numbers are the shortest.
_USUAL = 4

# How many due messages become ready in one transaction: more wait for the next, so that the first begin meanwhile.
_PORTION = 1_000
_HIGHEST = 2**63 - 1

_LAST = f"SELECT max(?1, coalesce(max(seq), 0)) FROM kq_message WHERE seq < ?1 + {_NUMBERS}"
_STORE = f"""INSERT INTO kq_message (seq, queue, id, rank, due, body)
    VALUES (({_LAST}) + 1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (queue, id) DO NOTHING"""
_MAKE_READY = "INSERT INTO kq_ready (queue, seq, rank, count) VALUES (?, ?, ?, 0)"
_MAKE_DELAYED = "INSERT INTO kq_delayed (queue, seq, rank, due) VALUES (?, ?, ?, ?)"

_HOLD = """INSERT INTO kq_held (seq, lease, queue, rank, count)
    SELECT seq, ?, queue, rank, count FROM kq_ready WHERE queue = ? ORDER BY rank, seq LIMIT ?"""
_HELD_NOW = """SELECT ticket, id, body, kq_held.rank, count, seq FROM kq_held JOIN kq_message USING (seq)
    WHERE ticket > ? ORDER BY ticket"""
_TAKEN = "DELETE FROM kq_ready WHERE queue = ? AND (rank, seq) <= (?, ?)"

# Not DELETE … RETURNING, which SQLite has from 3.35 on: Red Hat 9 and Debian 11 have 3.34.
_HELD_BY = "SELECT ticket, queue, rank, seq, count FROM kq_held WHERE lease = ?"
_THESE = "ticket IN (SELECT value FROM json_each(?))"
_END = f"DELETE FROM kq_held WHERE {_THESE}"
_FORGET = "DELETE FROM kq_message WHERE seq IN (SELECT value FROM json_each(?))"
_READY_AGAIN = "INSERT INTO kq_ready (queue, rank, seq, count) VALUES (?, ?, ?, ?)"

_AS_SEEN = "SELECT seq, rank, due FROM kq_message WHERE queue = ? AND id = ? AND body = ?"

# The last of a portion that is full; up to it a range of the table, which costs half of finding each again.
_LAST_DUE = "SELECT due, seq FROM kq_delayed WHERE queue = ? AND due <= ? ORDER BY due, seq LIMIT 1 OFFSET ?"
_UP_TO = "kq_delayed WHERE queue = ? AND (due, seq) <= (?, ?)"
_PROMOTE = f"INSERT INTO kq_ready (queue, rank, seq, count) SELECT queue, rank, seq, 0 FROM {_UP_TO}"
_PROMOTED = f"DELETE FROM {_UP_TO}"
_FIRST_DUE = "SELECT min(due) FROM kq_delayed WHERE queue = ?"


def store(work: Work, messages: Iterable[Message]) -> None:
    """Store messages behind all others, except those whose id their queue has. NotFound, Full: undo all."""
    arrivals: dict[str, _Arrivals] = {}
    for message in messages:
        arrived = arrivals.get(message.queue)
        if arrived is None:
            arrived = arrivals[message.queue] = work.known_queue(message.queue), [], []
        queue, ready, delayed = arrived
        rank, due = LOWEST - message.priority, work.steady + message.delay
        stored = work.execute(_STORE, (_first(rank), queue.number, message.id, rank, due, message.body))
        if not stored.rowcount:
            continue
        seq = stored.lastrowid or 0
        if message.delay > 0:
            delayed.append((queue.number, seq, rank, due))
        else:
            ready.append((queue.number, seq, rank))
    for name, (queue, ready, delayed) in arrivals.items():
        if ready:
            _make_ready(work, queue, ready)
        if delayed:
            _make_delayed(work, queue, delayed)
        if queue.length is not None:
            _check_room(work, queue, name, len(ready) + len(delayed))


def last(database: Database) -> list[int]:
    """Of each rank the highest number of a message, or the one before all of them."""
    return [database.read(_LAST, (_first(rank),))[0][0] for rank in range(LOWEST + 1)]


def _first(rank: int) -> int:
    return (rank - _USUAL) % (LOWEST + 1) * _NUMBERS


def _make_ready(work: Work, queue: Queue, rows: Sequence[tuple[int, int, int]]) -> None:
    work.executemany(_MAKE_READY, rows)
    work.count(queue.number, ready=len(rows))
    if queue.sleepers:
        work.call(queue.number, len(rows))


def _make_delayed(work: Work, queue: Queue, rows: Sequence[tuple[int, int, int, float]]) -> None:
    first = _first_due(work, queue.number)
    work.executemany(_MAKE_DELAYED, rows)
    work.count(queue.number, delayed=len(rows))
    if _first_due(work, queue.number) != first:
        # All of them: who keeps this moment in mind alone may get a job and stop looking.
        work.call(queue.number, EVERYBODY)


def _check_room(work: Work, queue: Queue, name: str, added: int) -> None:
    (waiting,) = work.execute("SELECT ready + delayed FROM kq_queue WHERE number = ?", (queue.number,)).fetchone()
    if queue.length is not None and waiting + added > queue.length:
        raise Full(f"the queue {name!r} has x-max-length {queue.length} and is full; let it drain or allow more")


def take(work: Work, lease: int, queue: Queue, name: str, limit: int) -> list[Delivery]:
    """Let lease hold up to limit ready messages of queue, the best first."""
    if limit <= 0:
        return []
    promote(work, queue)
    cursor = work.execute(_HOLD, (lease, queue.number, limit))
    if cursor.rowcount == 0:
        return []
    # Tickets are consecutive: nobody else writes meanwhile.
    last = cursor.lastrowid or 0
    rows = work.execute(_HELD_NOW, (last - cursor.rowcount,)).fetchall()
    *_, rank, _, seq = rows[-1]
    work.execute(_TAKEN, (queue.number, rank, seq))
    work.count(queue.number, ready=-len(rows), held=len(rows))
    if len(rows) == limit and is_ready(work, queue.number):
        work.call(queue.number, 1)  # for what is left, whoever was rung for it
    return [Delivery(str(ticket), id, name, body, LOWEST - rank, count) for ticket, id, body, rank, count, seq in rows]


def settle(work: Work, lease: int | None, verdicts: Sequence[Verdict]) -> list[str]:
    """End deliveries that lease holds; returns the receipts of those that it does not."""
    actions = {verdict.receipt: verdict.action for verdict in reversed(verdicts)}
    tickets = [int(receipt) for receipt in actions if _is_ticket(receipt)]
    ended: list[_Held] = work.execute(f"{_HELD_BY} AND {_THESE}", (lease, _list(tickets))).fetchall()
    _release(work, ended)
    _finish(work, [held for held in ended if actions[str(held[0])] is Action.DONE])
    _give_back(work, [held for held in ended if actions[str(held[0])] is Action.GIVE_BACK])
    if len(ended) == len(verdicts):
        return []
    found = {str(held[0]) for held in ended}
    return [verdict.receipt for verdict in verdicts if verdict.receipt not in found]


def give_back_all(work: Work, lease: int) -> None:
    """Make ready again whatever lease holds."""
    held = work.execute(_HELD_BY, (lease,)).fetchall()
    _release(work, held)
    _give_back(work, held)


def _release(work: Work, ended: Sequence[_Held]) -> None:
    work.execute(_END, (_list([held[0] for held in ended]),))


def _list(numbers: Sequence[int]) -> str:
    """Numbers as SQLite reads a list of them; json.dumps() takes five times as long."""
    return _encode(numbers).decode()


_encode = msgspec.json.Encoder().encode


def _is_ticket(receipt: str) -> bool:
    return receipt.isascii() and receipt.isdecimal() and not receipt.startswith("0") and len(receipt) < 19


def _finish(work: Work, ended: Sequence[_Held]) -> None:
    if ended:
        work.execute(_FORGET, (_list([held[3] for held in ended]),))
    for queue, number in Counter(held[1] for held in ended).items():
        work.count(queue, held=-number)


def _give_back(work: Work, ended: Sequence[_Held]) -> None:
    work.executemany(_READY_AGAIN, [(queue, rank, seq, count + 1) for _, queue, rank, seq, count in ended])
    for queue, number in Counter(held[1] for held in ended).items():
        work.count(queue, ready=number, held=-number)
        work.call(queue, number)


def remove(work: Work, queue: int, ids: Sequence[str]) -> list[str]:
    """Take those out for good that are ready or delayed; returns their ids."""
    rows = work.execute(
        "SELECT id, seq, rank, due FROM kq_message WHERE queue = ? AND id IN (SELECT value FROM json_each(?))",
        (queue, json.dumps(ids)),
    )
    return [id for id, seq, rank, due in rows.fetchall() if _remove(work, queue, seq, rank, due)]


def _remove(work: Work, queue: int, seq: int, rank: int, due: float | None) -> bool:
    """The same for one message; False when it is held."""
    ready = work.execute("DELETE FROM kq_ready WHERE queue = ? AND rank = ? AND seq = ?", (queue, rank, seq)).rowcount
    delayed = work.execute("DELETE FROM kq_delayed WHERE queue = ? AND due = ? AND seq = ?", (queue, due, seq)).rowcount
    if not ready and not delayed:
        return False
    work.execute("DELETE FROM kq_message WHERE seq = ?", (seq,))
    work.count(queue, ready=-ready, delayed=-delayed)
    return True


def swap(work: Work, queue: int, swaps: Sequence[Swap]) -> list[bool]:
    """Take those off that wait and are as they were seen, and store what is to take their place."""
    made, messages = list[bool](), list[Message]()
    for each in swaps:
        row = work.execute(_AS_SEEN, (queue, each.id, each.body)).fetchone()
        made.append(row is not None and _remove(work, queue, *row))
        if made[-1]:
            due = row[2]
            messages += each.published(0.0 if due is None else max(0.0, due - work.steady))
    work.tally()  # there is room for as many as were taken off
    store(work, messages)
    return made


def promote(work: Work, queue: Queue) -> None:
    """Make ready what is due by now, at the place that it got when it was submitted."""
    first = first_due(work, queue)
    if first is None or first > work.steady:
        return
    row = work.execute(_LAST_DUE, (queue.number, work.steady, _PORTION - 1)).fetchone()
    last = (queue.number, *(row or (work.steady, _HIGHEST)))
    work.execute(_PROMOTE, last)
    promoted = work.execute(_PROMOTED, last).rowcount
    work.count(queue.number, ready=promoted, delayed=-promoted)


def is_ready(work: Work, queue: int) -> bool:
    """Whether queue has a ready message."""
    return work.execute("SELECT 1 FROM kq_ready WHERE queue = ? LIMIT 1", (queue,)).fetchone() is not None


def first_due(work: Work, queue: Queue) -> float | None:
    """The steady reading at which queue's first delayed message is due, None when none is delayed."""
    return _first_due(work, queue.number) if queue.delayed else None


def _first_due(work: Work, queue: int) -> float | None:
    due: float | None = work.execute(_FIRST_DUE, (queue,)).fetchone()[0]
    return due
