"""Queues, exchanges and bindings. All within a transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from kq_transports.engine import Arguments, Binding, EngineError, Mismatch, NotFound
from kq_transports.sqlite.moves import LOWEST
from kq_transports.sqlite.work import Work

# Rows that go in one transaction, when a queue goes that may have a million.
_PORTION = 5000
# Of each rank another end.
_BELOW = f"seq < CASE rank {' '.join(f'WHEN {rank} THEN ?' for rank in range(LOWEST + 1))} END"


def declare(work: Work, name: str, arguments: Arguments, owner: int | None) -> None:
    """Create a queue unless it exists. owner: the lease that it ends with, the latest if there are several."""
    text = _text(name, arguments)
    row = work.execute("SELECT number, arguments FROM kq_queue WHERE name = ?", (name,)).fetchone()
    if row is None:
        _create(work, name, text, arguments, owner)
    elif row[1] != text:
        raise Mismatch(f"the queue {name!r} exists with arguments {row[1]}, not {text}; delete it or use another name")
    else:
        use(work, row[0])
        if owner is not None:
            work.execute("UPDATE kq_queue SET owner = ? WHERE number = ? AND owner IS NOT NULL", (owner, row[0]))


def _create(work: Work, name: str, text: str, arguments: Arguments, owner: int | None) -> None:
    expires = _number(name, arguments, "x-expires")
    work.execute(
        "INSERT INTO kq_queue (name, arguments, owner, single, length, expires, used) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            name,
            text,
            owner,
            bool(arguments.get("x-single-active-consumer")),
            _number(name, arguments, "x-max-length"),
            None if expires is None else expires / 1000,
            work.awake,
        ),
    )


def _text(name: str, arguments: Arguments) -> str:
    try:
        return json.dumps(arguments, sort_keys=True)
    except TypeError as error:
        raise EngineError(f"the arguments of queue {name!r} must be JSON: {error}") from error


def _number(name: str, arguments: Arguments, key: str) -> Any:
    value = arguments.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0):
        raise EngineError(f"{key} of queue {name!r} must be a number that is not negative, not {value!r}")
    return value


def use(work: Work, queue: int) -> None:
    """Begin the time anew after which an unused queue with x-expires ends."""
    work.execute("UPDATE kq_queue SET used = ? WHERE number = ?", (work.awake, queue))


def drop_expired(work: Work) -> None:
    """Drop the queues with x-expires that nobody used for so long, holds a message of, or waits for."""
    expired = work.execute(
        """SELECT number FROM kq_queue WHERE expires IS NOT NULL AND used + expires <= ? AND held = 0
           AND number NOT IN (SELECT queue FROM kq_waiter WHERE lease IS NOT NULL)""",
        (work.awake,),
    )
    for (queue,) in expired.fetchall():
        drop(work, queue)


def drop(work: Work, queue: int) -> int:
    """End a queue at once; returns how many messages it had. Their rows go later: see sweep()."""
    row = work.execute("SELECT name, ready + delayed + held FROM kq_queue WHERE number = ?", (queue,)).fetchone()
    if row is None:
        return 0
    name, count = row
    work.execute("DELETE FROM kq_queue WHERE number = ?", (queue,))
    work.execute("DELETE FROM kq_binding WHERE queue = ?", (name,))
    work.execute("DELETE FROM kq_held WHERE queue = ?", (queue,))
    work.execute("DELETE FROM kq_waiter WHERE queue = ?", (queue,))
    if count:
        work.execute("INSERT INTO kq_dropped VALUES (?)", (queue,))
    return int(count)


def sweep(work: Work) -> bool:
    """Remove a portion of what dropped queues left behind; False when nothing is left."""
    row = work.execute("SELECT queue FROM kq_dropped LIMIT 1").fetchone()
    if row is None:
        return False
    (queue,) = row
    for table, key in (("kq_ready", "queue, rank, seq"), ("kq_delayed", "queue, due, seq"), ("kq_message", "seq")):
        portion = f"SELECT {key} FROM {table} WHERE queue = ? LIMIT {_PORTION}"
        if work.execute(f"DELETE FROM {table} WHERE ({key}) IN ({portion})", row).rowcount:
            return True
    work.execute("DELETE FROM kq_dropped WHERE queue = ?", (queue,))
    return True


def purge(work: Work, queue: int, below: Sequence[int]) -> int:
    """Remove a portion of what is ready or delayed in queue, of each rank below a seq; returns how many."""
    removed = 0
    for state, key in (("ready", "queue, rank, seq"), ("delayed", "queue, due, seq")):
        portion = f"SELECT {key} FROM kq_{state} WHERE queue = ? AND {_BELOW} LIMIT ?"
        gone = work.execute(portion, (queue, *below, _PORTION - removed)).fetchall()
        work.executemany(f"DELETE FROM kq_{state} WHERE ({key}) = (?, ?, ?)", gone)
        work.executemany("DELETE FROM kq_message WHERE seq = ?", [(seq,) for _, _, seq in gone])
        work.count(queue, **{state: -len(gone)})
        removed += len(gone)
    return removed


def take_seat(work: Work, queue: int, lease: int) -> None:
    work.execute("UPDATE kq_queue SET seat = ? WHERE number = ?", (lease, queue))


def free_seat(work: Work, queue: int, lease: int) -> None:
    """Let the next one sit down who asks, if it is lease that sits there."""
    if work.execute("UPDATE kq_queue SET seat = NULL WHERE number = ? AND seat = ?", (queue, lease)).rowcount:
        work.call(queue, 1)


def declare_exchange(work: Work, name: str, kind: str) -> None:
    work.execute("INSERT OR IGNORE INTO kq_exchange VALUES (?, ?)", (name, kind))
    (known,) = work.execute("SELECT kind FROM kq_exchange WHERE name = ?", (name,)).fetchone()
    if known != kind:
        raise Mismatch(f"the exchange {name!r} is of kind {known}, not {kind}; delete it or use another name")


def delete_exchange(work: Work, name: str) -> None:
    work.execute("DELETE FROM kq_exchange WHERE name = ?", (name,))
    work.execute("DELETE FROM kq_binding WHERE exchange = ?", (name,))


def bind(work: Work, exchange: str, binding: Binding) -> None:
    work.known_queue(binding.queue)
    if work.execute("SELECT 1 FROM kq_exchange WHERE name = ?", (exchange,)).fetchone() is None:
        raise no_exchange(exchange)
    work.execute("INSERT OR IGNORE INTO kq_binding VALUES (?, ?, ?)", (exchange, binding.queue, binding.key))


def unbind(work: Work, exchange: str, binding: Binding) -> None:
    work.execute(
        "DELETE FROM kq_binding WHERE exchange = ? AND queue = ? AND key = ?", (exchange, binding.queue, binding.key)
    )


def bindings(rows: Sequence[tuple[str, str | None, str | None]], exchange: str) -> tuple[str, list[Binding]]:
    """The kind of an exchange and its bindings, from the rows of BINDINGS."""
    if not rows:
        raise no_exchange(exchange)
    return rows[0][0], [Binding(queue, key or "") for _, queue, key in rows if queue is not None]


BINDINGS = """SELECT kind, queue, key FROM kq_exchange LEFT JOIN kq_binding ON exchange = name
    WHERE name = ? ORDER BY queue, key"""


def no_exchange(name: str) -> NotFound:
    return NotFound(f"there is no exchange {name!r}; declare it first")
