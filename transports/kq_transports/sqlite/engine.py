"""An Engine whose broker is an SQLite file that the processes of one host share.

Each verb is one short write transaction. What a verb does is in moves.py, topology.py and leases.py;
here is what belongs to the connection: its lease, its bell, and when it is dead.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from kq_transports.engine import (
    Arguments,
    Binding,
    Counts,
    Declined,
    Delivery,
    Engine,
    EngineError,
    Lease,
    LeaseLost,
    Load,
    Message,
    NotEmpty,
    Options,
    Rider,
    Seen,
    State,
    Swap,
    Traits,
    Verdict,
    Want,
)
from kq_transports.hostfile import Bell, Database, Reader
from kq_transports.sqlite import leases, look, moves, topology
from kq_transports.sqlite.schema import SCHEMA
from kq_transports.sqlite.work import Queue, Work
from kq_transports.thread import begin

# Transactions of this connection after which an idle moment is used to empty the log.
_CHECKPOINT_AFTER = 100


TRAITS = Traits("sqlite", carries=True)


class SqliteEngine(Engine):
    """A connection to the broker in the file at path, which is created when it is missing.

    options.extra: synchronous="full" (the default: what is committed survives a power failure) or
        "normal" (it survives the death of every process, and a commit does not wait for the disk); shared=True for a
        file of which a part may belong to another user of the host.
    """

    traits = TRAITS

    def __init__(self, path: str, options: Options | None = None) -> None:
        self.options = options or Options()
        if not self.options.name:
            self.options.name = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
        self._path = path
        self._synchronous, self._shared = _extra(self.options.extra)
        #: What to read with; one who only looks has no more than that before he changes something.
        self._file: Database | Reader
        self._file = self._reader() if self.options.look else self._opened()
        self._lease: int | None = None
        self._dead = False
        self._bell: Bell | None = None
        #: What this connection sleeps for, since the last arm(); None when it does not.
        self._armed: Sequence[str] | None = None
        self._due_at: float | None = None
        self._transactions = 0
        self._closed = threading.Event()
        if isinstance(self._file, Database):
            try:
                self._sweep()
            except BaseException:
                self._file.close()
                raise
        if self.options.keep_alive:
            beating = _keep_alive, (weakref.ref(self), self._closed, self.options.lease / 3)
            begin(threading.Thread(target=beating[0], args=beating[1], name="kq-keep-alive", daemon=True))

    # The topology.

    def declare(self, queue: str, arguments: Arguments, *, mortal: bool = False) -> None:
        if mortal:
            with self._living_work() as (work, lease):
                leases.end_dead(work)
                topology.declare(work, queue, arguments, lease)
            return
        with self._work() as work:
            leases.end_dead(work)
            topology.declare(work, queue, arguments, None)

    def queues(self) -> dict[str, Arguments]:
        rows = self._file.read("SELECT name, arguments FROM kq_queue ORDER BY name")
        return {name: json.loads(arguments) for name, arguments in rows}

    def delete(self, queue: str, *, if_empty: bool = False) -> int:
        with self._work() as work:
            known = work.queue(queue)
            removed = 0 if known is None else topology.drop(work, known.number)
            if if_empty and removed:
                raise NotEmpty(f"queue {queue!r} has messages")  # which undoes it
        self._sweep()
        return removed

    def purge(self, queue: str) -> int:
        last = moves.last(self._database)
        removed = 0
        # The last of each rank goes at the end: what is stored meanwhile would get numbers of what went, and go too.
        while portion := self._purge(queue, last):
            removed += portion
        return removed + self._purge(queue, [each + 1 for each in last])

    def _purge(self, queue: str, below: Sequence[int]) -> int:
        with self._work() as work:
            known = work.queue(queue)
            return 0 if known is None else topology.purge(work, known.number, below)

    def declare_exchange(self, exchange: str, kind: str) -> None:
        with self._work() as work:
            topology.declare_exchange(work, exchange, kind)

    def delete_exchange(self, exchange: str) -> None:
        with self._work() as work:
            topology.delete_exchange(work, exchange)

    def bind(self, exchange: str, binding: Binding) -> None:
        with self._work() as work:
            topology.bind(work, exchange, binding)

    def unbind(self, exchange: str, binding: Binding) -> None:
        with self._work() as work:
            topology.unbind(work, exchange, binding)

    def bindings(self, exchange: str) -> tuple[str, Sequence[Binding]]:
        return topology.bindings(self._file.read(topology.BINDINGS, (exchange,)), exchange)

    # The life of a message.

    def publish(self, messages: Sequence[Message], rider: Rider | None = None) -> None:
        """rider: called in the transaction with the Database and its connection; returns whether it agrees."""
        self.fit(messages)
        if messages:
            with self._work() as work:
                if rider is not None and not rider(self._database, work.connection):
                    raise Declined("nothing was stored: the rider refused")
                moves.store(work, messages)

    def reserve(self, wants: Sequence[Want], verdicts: Sequence[Verdict] = ()) -> list[Delivery]:
        # A reservation that a power failure undoes has no holder any more; a verdict must stay.
        with self._living_work(durable=bool(verdicts)) as (work, lease):
            self._wake_up(work)
            if verdicts:
                moves.settle(work, lease, verdicts)
            leases.end_dead(work)
            topology.drop_expired(work)
            taken = self._take(work, lease, wants)
            self.due = self._until_due(work, [queue for want in wants for queue in want.queues])
        return taken

    def settle(self, verdicts: Sequence[Verdict], messages: Sequence[Message] = ()) -> list[str]:
        with suppress(_StaleReceipts), self._own_work() as work:
            stale = moves.settle(work, self._lease, verdicts) if verdicts else []
            if stale and messages:
                raise _StaleReceipts
            if messages:
                moves.store(work, messages)
        return stale

    def release(self, queues: Iterable[str]) -> None:
        if self._lease is None and self._armed is None:
            return
        with self._work() as work:
            for name in queues:
                self._leave(work, name)

    def beat(self) -> None:
        with self._living_work(durable=False) as (work, lease):
            leases.renew(work, lease, self.options.lease)
            self._database.clock.note(work.connection)
        self._ring_if_late()
        self._rest()

    # Waiting.

    def arm(self, queues: Sequence[str]) -> int:
        bell = self._hung_up()
        with self._work(durable=False) as work:
            self._armed = tuple(queues)
            self.due = self._until_due(work, queues)
            self._due_at = None if self.due is None else work.steady + self.due
            if self.due == 0 or self._finds_something(work, queues):
                bell.ring()
            else:
                self._lie_down(work, bell, queues)
        self._rest()
        return bell.descriptor

    def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        if isinstance(self._file, Reader):
            return
        with suppress(EngineError), self._work() as work:
            for name in self._armed or ():
                self._leave(work, name)
            if self._lease is not None:
                leases.end(work, self._lease)
        with suppress(EngineError):
            self._sweep()
        if self._bell is not None:
            self._bell.close()
        self._database.close()

    # Management.

    def count(self, queue: str) -> Counts:
        return look.count(self._file, queue)

    def survey(self) -> dict[str, Load]:
        return look.survey(self._file)

    def browse(self, queue: str, state: State = "ready", limit: int = 100, offset: int = 0) -> list[Seen]:
        return look.browse(self._file, queue, state, limit, offset)

    def find(self, queue: str, ids: Sequence[str]) -> list[Seen]:
        return look.find(self._file, queue, ids)

    def remove(self, queue: str, ids: Sequence[str]) -> list[str]:
        with self._work() as work:
            known = work.queue(queue)
            return [] if known is None else moves.remove(work, known.number, ids)

    def swap(self, queue: str, swaps: Sequence[Swap]) -> list[bool]:
        with self._work() as work:
            leases.end_dead(work)
            return moves.swap(work, work.known_queue(queue).number, swaps)

    def leases(self) -> list[Lease]:
        return look.leases(self._file)

    def facts(self) -> dict[str, str]:
        ((pages, size),) = self._file.read("SELECT page_count, page_size FROM pragma_page_count, pragma_page_size")
        return {
            "version": sqlite3.sqlite_version,
            "file": str(self._file.path),
            "synchronous": self._synchronous,
            "bytes": str(pages * size),
            "log bytes": str(self._file.log_size),
        }

    def expel(self, connection: str) -> bool:
        with self._work() as work:
            lease = leases.find(work, connection)
            if lease is not None:
                leases.expel(work, lease)
        return lease is not None

    # The file.

    def _opened(self) -> Database:
        return Database(
            self._path, SCHEMA, timeout=self.options.timeout, synchronous=self._synchronous, shared=self._shared
        )

    def _reader(self) -> Reader:
        return Reader(self._path, SCHEMA, timeout=self.options.timeout, shared=self._shared)

    @property
    def _database(self) -> Database:
        """The file, to write to."""
        if isinstance(self._file, Reader):
            self._file = self._opened()
        return self._file

    # Transactions.

    def _work(self, *, durable: bool = True) -> Work:
        self._transactions += 1
        return Work(self._database, durable=durable)

    @contextmanager
    def _own_work(self, *, durable: bool = True) -> Iterator[Work]:
        """A transaction that speaks of deliveries: LeaseLost when this connection is dead."""
        if self._dead:
            raise self._lost()
        with self._work(durable=durable) as work:
            if self._lease is not None and not leases.is_alive(work, self._lease):
                self._dead = True
                raise self._lost()
            yield work

    @contextmanager
    def _living_work(self, *, durable: bool = True) -> Iterator[tuple[Work, int]]:
        """The same with this connection's lease, which begins here if it did not before."""
        with self._own_work(durable=durable) as work:
            lease = self._lease or leases.begin(work, self.options.name, self.options.lease)
            yield work, lease
        self._lease = lease  # committed

    def _lost(self) -> LeaseLost:
        return LeaseLost(
            f"the lease of connection {self.options.name} is over and what it held goes to others; open a new one"
        )

    # What a reserve and an arm are made of.

    def _take(self, work: Work, lease: int, wants: Sequence[Want]) -> list[Delivery]:
        taken: list[Delivery] = []
        for want in wants:
            left = want.limit
            for name in want.queues:
                queue = work.queue(name)
                if queue is None or not _sit_down(work, queue, lease):
                    continue
                got = moves.take(work, lease, queue, name, left)
                taken += got
                left -= len(got)
        return taken

    def _until_due(self, work: Work, queues: Iterable[str]) -> float | None:
        """Seconds until something is due in queues or another connection's lease ends."""
        found = [queue for name in queues if (queue := work.queue(name))]
        moments = [due - work.steady for queue in found if (due := moves.first_due(work, queue)) is not None]
        end = leases.first_end(work, but=self._lease or 0)
        if end is not None:
            moments.append(end - work.awake)
        return max(0.0, min(moments)) if moments else None

    def _finds_something(self, work: Work, queues: Iterable[str]) -> bool:
        found = [queue for name in queues if (queue := work.queue(name))]
        return any(queue.seat in (None, self._lease) and moves.is_ready(work, queue.number) for queue in found)

    def _lie_down(self, work: Work, bell: Bell, queues: Iterable[str]) -> None:
        """Be among those who are rung when queues have something."""
        found = [queue for name in queues if (queue := work.queue(name))]
        work.executemany(
            "INSERT OR REPLACE INTO kq_waiter (queue, bell, lease, since) VALUES (?, ?, ?, ?)",
            [(queue.number, bell.name, self._lease, work.awake) for queue in found],
        )

    def _wake_up(self, work: Work) -> None:
        """Be rung no more. In a transaction: whoever rings is in one too, so no late ring follows."""
        if self._bell is not None and self._armed is not None:
            self._armed = None
            self._bell.quiet()
            work.execute("DELETE FROM kq_waiter WHERE bell = ?", (self._bell.name,))

    def _leave(self, work: Work, name: str) -> None:
        """Be no consumer of a queue: let somebody else have its seat, and a ring that came for it."""
        queue = work.queue(name)
        if queue is None:
            return
        if self._lease is not None:
            topology.free_seat(work, queue.number, self._lease)
        if self._bell is not None:
            work.execute("DELETE FROM kq_waiter WHERE queue = ? AND bell = ?", (queue.number, self._bell.name))
        if moves.is_ready(work, queue.number):
            work.call(queue.number, 1)

    def _rest(self) -> None:
        """Use an idle moment for what would else make somebody wait."""
        self._sweep()
        if self._transactions >= _CHECKPOINT_AFTER:
            self._transactions = 0
            self._database.checkpoint()

    def _sweep(self) -> None:
        """Remove what dropped queues left behind."""
        while self._database.read("SELECT 1 FROM kq_dropped LIMIT 1"):
            with self._work(durable=False) as work:
                topology.sweep(work)

    def _renew(self) -> bool:
        """Renew the lease from another thread; False when there is nothing to renew any more."""
        lease = self._lease
        if lease is None:
            return True
        with Work(self._database, durable=False) as work:
            alive = leases.is_alive(work, lease)
            if alive:
                leases.renew(work, lease, self.options.lease)
        self._ring_if_late()
        return alive

    def _ring_if_late(self) -> None:
        """Wake the sleeper whom nobody wakes.

        For what fell due while the machine slept, which its own sleep does not count, or because its bell was removed.
        """
        bell, due_at = self._bell, self._due_at
        if bell is None or self._armed is None:
            return
        if not bell.hangs or (due_at is not None and self._database.clock.steady() > due_at):
            bell.ring()

    def _hung_up(self) -> Bell:
        """The bell of this connection, another one where somebody took it down."""
        bell = self._bell
        if bell is not None and not bell.hangs:
            bell.close()
            bell = None
        self._bell = bell or self._database.bell()
        return self._bell


class _StaleReceipts(Exception):
    """Undoes a settle whose follow-ups may have been stored before."""


def _sit_down(work: Work, queue: Queue, lease: int) -> bool:
    """Whether lease may take from queue; on one with a seat it takes that if it is free."""
    if queue.expires is not None:
        topology.use(work, queue.number)
    if queue.single and queue.seat is None:
        topology.take_seat(work, queue.number, lease)
    return not queue.single or queue.seat in (None, lease)


def _keep_alive(connection: weakref.ref[SqliteEngine], closed: threading.Event, every: float) -> None:
    """Beat for a connection until it is closed, forgotten or dead."""
    while not closed.wait(every):
        engine = connection()
        if engine is None:
            return
        with suppress(EngineError):  # the next beat may get through
            if not engine._renew():
                return
        del engine


def _extra(extra: Mapping[str, object]) -> tuple[str, bool]:
    """What the options say: synchronous and shared."""
    unknown = sorted(extra.keys() - {"synchronous", "shared"})
    if unknown:
        raise EngineError(f"the SQLite transport has no option {', '.join(unknown)}")
    shared = extra.get("shared", False)
    if not isinstance(shared, bool):
        raise EngineError(f"shared is true or false, not {shared!r}")
    return str(extra.get("synchronous", "full")).lower(), shared
