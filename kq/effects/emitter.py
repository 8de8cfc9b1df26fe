"""What jobs emit, on its way to the state store: for a moment in memory, then in blocks, under the worker's fence.

A job that emits waits for nothing. A thread of the process where jobs run writes what has gathered, of all of them in
one step; before a job's end is told, the rest is written. What is refused there was said by a worker that is taken for
dead, or by an attempt after which another one has spoken (promise C4). See `kq.handles.stream` for what stands there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from kq.clock import SYSTEM
from kq.errors import LeaseLost
from kq.handles.stream import Block, Head, decode_head
from kq.state.store import Store, StoreUnreachable, Write
from kq.units import format_size
from kq.values.record import block_key, encode, lease_key, stream_key

log = logging.getLogger("kq.jobs")

#: Seconds between two times that something is written: what gathers meanwhile goes together.
PAUSE = 0.05
#: Seconds for which a state store that does not answer is asked again when a job ends, and between two times.
PATIENCE, AGAIN = 60.0, 0.1
#: Seconds without a word after which the thread ends.
IDLE = 1.0
#: Seconds for which a stream is kept beyond its attempt's time and what results are kept.
SPARE = 60.0


class Terms(NamedTuple):
    """How much of a stream is kept. most: chunks; size: their bytes; keep: seconds after the job's end, 0: nothing."""

    most: int
    size: int
    keep: float


class _Going(NamedTuple):
    """What is being written. after: the head as it will stand."""

    after: Head
    writes: list[Write]


class Outlet:
    """The stream of one attempt, from inside. May be used by several threads."""

    def __init__(
        self, emitter: Emitter, job: str, attempt: int, worker: str, terms: Terms, until: Callable[[], float]
    ) -> None:
        """until: when the attempt's time ends, on the monotonic clock."""
        self.job = job
        self._emitter = emitter
        self._attempt, self._worker, self._terms, self._until = attempt, worker, terms, until
        self._lock = threading.Lock()
        self._chunks: list[bytes] = []
        self._count = self._size = self._left_out = 0
        self._head: Head | None = None  # as it stands; None before that is known
        self._stands: bytes | None = None
        self._going: _Going | None = None
        self._refused = False

    def add(self, chunk: bytes) -> bool:
        """Take in a chunk; False when it is left out. Raises LeaseLost when this attempt may say no more."""
        if not self._terms.keep:
            return False
        with self._lock:
            if self._refused:
                raise LeaseLost(f"{self._worker} may not speak for job {self.job} any more: what it emits is refused")
            fits = self._count < self._terms.most and self._size + len(chunk) <= self._terms.size
            if fits:
                self._chunks.append(chunk)
                self._count += 1
                self._size += len(chunk)
            else:
                self._left_out += 1
            tells = self._left_out == 1 and not fits
        self._emitter.call(self)
        if tells:
            most, size = f"{self._terms.most:,}", format_size(self._terms.size)
            log.warning("its stream is full (%s chunks, %s): what does not fit is left out", most, size)
        return fits

    def finish(self, until: float) -> None:
        """Write all that was taken in. until: when to give up, monotonic; what is left then is lost, and logged."""
        self._emitter.finish(self, until)

    @property
    def waits(self) -> bool:
        """Whether something is to be written."""
        with self._lock:
            told = 0 if self._head is None else self._head.left_out
            return not self._refused and bool(self._chunks or self._going or self._left_out > told)

    # For the emitter, which is at it in one thread at a time.

    @property
    def begun(self) -> bool:
        """Whether it is known where it begins."""
        return self._head is not None

    def begin(self, stands: bytes | None) -> None:
        """Begin behind what stands there of another attempt."""
        self._stands = stands
        before = decode_head(stands) or Head()
        self._head = Head(self._attempt, before.next, before.next, before.blocks, before.blocks)
        self._old = range(before.first, before.blocks)

    def writes(self) -> list[Write]:
        """What to write now: the same again until it is known to be written."""
        if self._going is None:
            self._going = self._next()
        return self._going.writes

    def _next(self) -> _Going:
        assert self._head is not None
        with self._lock:
            chunks, self._chunks = self._chunks, []
            left_out = self._left_out
        before, key = self._head, stream_key(self.job)
        after = msgspec.structs.replace(
            before,
            next=before.next + len(chunks),
            blocks=before.blocks + bool(chunks),
            left_out=left_out,
        )
        keep = max(0.0, self._until() - SYSTEM.monotonic()) + self._terms.keep + SPARE
        mine = (key, encode(after))
        writes = [Write(*mine, keep, lease_key(self._worker), must=(key, self._stands), durable=False)]
        if chunks:
            block = Block(self._attempt, before.start, before.next, [msgspec.Raw(chunk) for chunk in chunks])
            writes.append(Write(block_key(self.job, before.blocks), encode(block), keep, must=mine, durable=False))
        writes += [Write(block_key(self.job, number), None, must=mine, durable=False) for number in self._old]
        return _Going(after, writes)

    def written(self, made: bool, store: Store) -> None:
        """What was to be written is, or was refused. store: where one looks what stands there."""
        assert self._going is not None
        after = encode(self._going.after)
        # Its answer may have been lost, and then it is refused the second time.
        made = made or store.get([stream_key(self.job)])[0] == after
        with self._lock:
            if made:
                self._head, self._stands, self._going, self._old = self._going.after, after, None, range(0)
            else:
                self._refused = True

    def give_up(self) -> None:
        """Write nothing more: the job's end is told."""
        with self._lock:
            self._refused = True

    @property
    def unwritten(self) -> int:
        """How many chunks were taken in and are not known to be written."""
        known = 0 if self._head is None else self._head.next - self._head.start
        return self._count - known


class Emitter:
    """Writes the streams of the jobs of one process. May be used by several threads.

    lapse: when, on the monotonic clock, its worker may do nothing more.
    """

    def __init__(self, store: Callable[[], Store], lapse: Callable[[], float]) -> None:
        self._store, self._lapse = store, lapse
        self._changed = threading.Condition()
        self._waiting: dict[Outlet, None] = {}
        self._thread: threading.Thread | None = None
        self._writing = threading.Lock()

    def call(self, outlet: Outlet) -> None:
        """Let what outlet has be written soon."""
        with self._changed:
            if outlet in self._waiting:
                return
            self._waiting[outlet] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="kq-emitter", daemon=True)
                self._thread.start()
            self._changed.notify()

    def finish(self, outlet: Outlet, until: float) -> None:
        """Write all that outlet has, now. until: when to give up, monotonic; what is left then is lost, and logged."""
        until = min(until, SYSTEM.monotonic() + PATIENCE, self._lapse())
        while outlet.waits:
            try:
                self._write([outlet])
            except StoreUnreachable as error:
                if SYSTEM.monotonic() + AGAIN >= until:
                    log.warning("%d chunks of its stream are lost: %s", outlet.unwritten, error)
                    outlet.give_up()
                    return
                time.sleep(AGAIN)

    def _run(self) -> None:
        while outlets := self._called():
            try:
                self._write(outlets)
            except StoreUnreachable:
                for outlet in outlets:
                    self.call(outlet)
                time.sleep(AGAIN)
            time.sleep(PAUSE)

    def _called(self) -> list[Outlet]:
        """Those that have something, as soon as there are some; none when the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting, IDLE)
            outlets = list(self._waiting)
            self._waiting.clear()
            if not outlets:
                self._thread = None
            return outlets

    def _write(self, outlets: Iterable[Outlet]) -> None:
        with self._writing:
            there = [outlet for outlet in outlets if outlet.waits]
            if not there:
                return
            store = self._store()
            if fresh := [outlet for outlet in there if not outlet.begun]:
                for outlet, stands in zip(fresh, store.get([stream_key(each.job) for each in fresh]), strict=True):
                    outlet.begin(stands)
            planned = [outlet.writes() for outlet in there]
            made = iter(store.write([write for writes in planned for write in writes]))
            for outlet, writes in zip(there, planned, strict=True):
                first, *_ = [next(made) for _ in writes]
                outlet.written(first, store)
