"""One write transaction: what it changes is counted, and announced to those who sleep.

Bells are rung before the commit. Who is woken queues up behind this transaction, so it sees what was
committed; and nobody sleeps on if this process is killed between its commit and a ring after it.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from kq_transports.engine import NotFound
from kq_transports.hostfile import Database

_QUEUE = """SELECT number, single, seat, length, expires, delayed,
    EXISTS (SELECT 1 FROM kq_waiter WHERE queue = number) FROM kq_queue WHERE name = ?"""
_COUNT = "UPDATE kq_queue SET ready = ready + ?, delayed = delayed + ?, held = held + ? WHERE number = ?"
# On a queue with a seat, only who sits there can take anything. The last to fall asleep is rung first: somebody who
# gave up waiting and does something else now, which nobody can know, has been on the list for longer.
_SLEEPERS = """SELECT bell FROM kq_waiter JOIN kq_queue ON number = queue
    WHERE queue = ? AND (seat IS NULL OR seat = lease) ORDER BY since DESC"""

EVERYBODY = 1_000_000


class Queue(NamedTuple):
    """A queue's row at the beginning of the transaction.

    length, expires (seconds): None without such an argument. seat: the lease that has it. sleepers: whether anybody
    sleeps until something comes to it.
    """

    number: int
    single: bool
    seat: int | None
    length: int | None
    expires: float | None
    delayed: int
    sleepers: bool


class Work:
    """What one verb does, in a block that is a write transaction on database and undone when that raises.

    awake, steady: the readings of hostfile.clock at its beginning.
    """

    def __init__(self, database: Database, *, durable: bool = True) -> None:
        self._database = database
        self._durable = durable
        self._queues: dict[str, Queue | None] = {}
        self._changed: dict[int, list[int]] = {}
        self._calls: dict[int, int] = {}

    def __enter__(self) -> Work:
        connection = self._database.begin()
        self.connection: sqlite3.Connection = connection
        self.execute = connection.execute
        self.executemany = connection.executemany
        clock = self._database.clock
        self.awake = clock.awake()
        self.steady = clock.steady()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            try:
                self._finish()
            except BaseException as failed:
                self._database.end(failed, self._durable)
                raise
        self._database.end(error, self._durable)

    def queue(self, name: str) -> Queue | None:
        """The queue of that name, None when there is none."""
        if name not in self._queues:
            row = self.execute(_QUEUE, (name,)).fetchone()
            self._queues[name] = None if row is None else Queue._make(row)
        return self._queues[name]

    def known_queue(self, name: str) -> Queue:
        """The queue of that name; NotFound when there is none."""
        queue = self.queue(name)
        if queue is None:
            raise NotFound(f"there is no queue {name!r}; declare it first")
        return queue

    def count(self, queue: int, *, ready: int = 0, delayed: int = 0, held: int = 0) -> None:
        """Note that so many more messages of queue are in each state."""
        change = self._changed.setdefault(queue, [0, 0, 0])
        change[0] += ready
        change[1] += delayed
        change[2] += held

    def call(self, queue: int, sleepers: int) -> None:
        """Wake up to so many of those who sleep on queue, for it has something for them."""
        self._calls[queue] = self._calls.get(queue, 0) + sleepers

    def call_all(self) -> None:
        """Wake everybody: the moments that they sleep for have changed."""
        for (queue,) in self.execute("SELECT DISTINCT queue FROM kq_waiter").fetchall():
            self.call(queue, EVERYBODY)

    def tally(self) -> None:
        """Write the counts."""
        for queue, change in self._changed.items():
            self.execute(_COUNT, (*change, queue))
        self._changed.clear()

    def _finish(self) -> None:
        """Write the counts and ring the bells; the last step before the commit."""
        if self._changed:
            self.tally()
        for queue, sleepers in self._calls.items():
            self._ring(queue, sleepers)

    def _ring(self, queue: int, sleepers: int) -> None:
        woken = 0
        for (bell,) in self.execute(_SLEEPERS, (queue,)).fetchall():
            # Whoever was rung is awake for all of its queues; whoever is gone needs no bell.
            self.execute("DELETE FROM kq_waiter WHERE bell = ?", (bell,))
            woken += self._database.ring(bell)
            if woken >= sleepers:
                return
