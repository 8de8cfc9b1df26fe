"""Leases: which connections live, and what happens to what the dead ones had. All within a transaction."""

from __future__ import annotations

from kq_transports.engine import EXPELLED
from kq_transports.sqlite import moves, topology
from kq_transports.sqlite.work import Work


def begin(work: Work, name: str, length: float) -> int:
    """A new lease's number, which is never given twice. Whoever had that name before is dead from now on."""
    other = find(work, name)
    if other is not None:
        end(work, other)
    number = work.execute("INSERT INTO kq_lease (name, until) VALUES (?, ?)", (name, work.awake + length)).lastrowid
    work.call_all()  # who sleeps must wake up when this lease ends
    return number or 0


def renew(work: Work, number: int, length: float) -> None:
    work.execute("UPDATE kq_lease SET until = ? WHERE number = ?", (work.awake + length, number))


def is_alive(work: Work, number: int) -> bool:
    """Whether a lease is there and not over, noticed by anybody or not."""
    row = work.execute("SELECT until > ? FROM kq_lease WHERE number = ?", (work.awake, number)).fetchone()
    return row is not None and bool(row[0])


def find(work: Work, name: str) -> int | None:
    """The number of the lease of that name, dead or alive."""
    row = work.execute("SELECT number FROM kq_lease WHERE name = ?", (name,)).fetchone()
    return None if row is None else row[0]


def end(work: Work, number: int) -> None:
    """End a lease: what it held is ready again, its seats are free, its queues go."""
    moves.give_back_all(work, number)
    for (queue,) in work.execute("SELECT number FROM kq_queue WHERE seat = ?", (number,)).fetchall():
        topology.free_seat(work, queue, number)
    for (queue,) in work.execute("SELECT number FROM kq_queue WHERE owner = ?", (number,)).fetchall():
        topology.drop(work, queue)
    work.execute("DELETE FROM kq_waiter WHERE lease = ?", (number,))
    work.execute("DELETE FROM kq_lease WHERE number = ?", (number,))


def expel(work: Work, number: int) -> None:
    """End a lease from outside. Its seats stay taken until it would have ended."""
    if work.execute("SELECT 1 FROM kq_queue WHERE seat = ?", (number,)).fetchone():
        rest = "INSERT INTO kq_lease (name, until) SELECT name || ?, until FROM kq_lease WHERE number = ?"
        seated = work.execute(rest, (EXPELLED, number)).lastrowid
        work.execute("UPDATE kq_queue SET seat = ? WHERE seat = ?", (seated, number))
    end(work, number)


def end_dead(work: Work) -> None:
    """End every lease that is over."""
    for (number,) in work.execute("SELECT number FROM kq_lease WHERE until <= ?", (work.awake,)).fetchall():
        end(work, number)


def first_end(work: Work, but: int) -> float | None:
    """When the first of the other connections' leases ends, if there are any."""
    end: float | None = work.execute("SELECT min(until) FROM kq_lease WHERE number <> ?", (but,)).fetchone()[0]
    return end
