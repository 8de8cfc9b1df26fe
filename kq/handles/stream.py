"""Streams: what a job says piece by piece while it runs, and how that is read, by many and at any time.

The pieces, its chunks, stand in the state store in blocks. Blocks and chunks are numbered through all attempts of a
job; a head says which of them are its stream now: those of the last attempt that emitted something. Who reads waits
for the next block or for the job's end, whatever comes first. `kq.effects.emitter` writes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import msgspec

from kq.errors import ResultTimeout, StreamCut
from kq.state.store import Store, StoreUnreachable
from kq.values.reading import reader
from kq.values.record import block_key, job_key, stream_key

#: So many blocks are read at a time.
PAGE = 100
#: So many chunks are told where all of a job is.
LATEST = 5
#: Seconds between two words to who waits, and between two tries at a state store that does not answer.
WORD, PAUSE = 2.0, 0.2


class Chunk(msgspec.Struct, frozen=True):
    """A piece of a stream. value: as JSON values. offset: its number; the next one has the next.

    attempt: the job's that emitted it. begins: it is the first of its attempt, and what came before counts no more.
    """

    value: Any
    offset: int
    attempt: int
    begins: bool


class Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """What stands of a stream. start: the offset of the attempt's first chunk; next: of the one that is to come.

    first: the number of the attempt's first block; blocks: of the next one. left_out: so many chunks were too many.
    """

    attempt: int = 0
    start: int = 0
    next: int = 0
    first: int = 0
    blocks: int = 0
    left_out: int = 0


class Emitted(msgspec.Struct, frozen=True):
    """What there is of a stream by now. count: how many chunks its last attempt emitted; left_out: so many more.

    last: the latest of them, LATEST at most.
    """

    count: int
    left_out: int
    last: tuple[Chunk, ...]


class Block(msgspec.Struct, frozen=True):
    """Chunks of an attempt, from an offset on. start: the offset of the attempt's first."""

    attempt: int
    start: int
    offset: int
    chunks: list[msgspec.Raw]

    def read(self, offset: int) -> Iterator[Chunk]:
        """Its chunks from offset on."""
        for number, chunk in enumerate(self.chunks, self.offset):
            if number >= offset:
                yield Chunk(msgspec.json.decode(chunk), number, self.attempt, number == self.start)


decode_head = reader(Head)
decode_block = reader(Block)


def emitted(store: Store, job: str, stands: bytes | None) -> Emitted | None:
    """What there is of a job's stream; None where there is none. stands: what is under stream_key(job)."""
    head = decode_head(stands)
    if head is None or not (head.next > head.start or head.left_out):
        return None
    numbers = range(max(head.first, head.blocks - LATEST), head.blocks)  # none is empty
    blocks = [decode_block(each) for each in store.get([block_key(job, number) for number in numbers])]
    found = [chunk for block in blocks if block is not None for chunk in block.read(head.next - LATEST)]
    return Emitted(head.next - head.start, head.left_out, tuple(found))


def chunks(
    store: Store, job: str, offset: int, timeout: float, over: threading.Event | None = None
) -> Generator[Chunk | None, None, None]:
    """The chunks of a job's stream from offset on, until the job has ended or was buried; None while none comes.

    timeout: seconds in all. over: ends it, soon. Raises ResultTimeout when it has not ended by then, StreamCut when
    it has and chunks were left out, StoreUnreachable when the state store does not answer to the end.
    """
    until = time.monotonic() + timeout
    standing = _Standing(store, job)
    while over is None or not over.is_set():
        try:
            ended = standing.look()
            while page := standing.page():
                for chunk in page:
                    if chunk.offset >= offset:
                        offset = chunk.offset + 1
                        yield chunk
            if ended:
                break
            if time.monotonic() >= until:
                raise ResultTimeout(job)
            standing.wait(min(WORD, until - time.monotonic()))
            yield None
        except StoreUnreachable:
            if time.monotonic() + PAUSE >= until:
                raise
            time.sleep(PAUSE)
            yield None
    if standing.head.left_out:
        raise StreamCut(job, f"{standing.head.left_out} of its chunks were left out")


class _Standing:
    """What a reader knows of a stream."""

    def __init__(self, store: Store, job: str) -> None:
        self._store, self._job = store, job
        self._at = 0  # the next block
        self.head = Head()

    def look(self) -> bool:
        """Look how far it is; returns whether the job has ended: then all of it stands there."""
        found, record = self._store.get([stream_key(self._job), job_key(self._job)])
        self.head = decode_head(found) or self.head
        self._at = max(self._at, self.head.first)
        return record is not None

    def page(self) -> Sequence[Chunk]:
        """The chunks that follow; none when there are no more, or another attempt takes their place."""
        while self._at < self.head.blocks:
            numbers = range(self._at, min(self._at + PAGE, self.head.blocks))
            found = [decode_block(each) for each in self._store.get([block_key(self._job, n) for n in numbers])]
            if any(block is None for block in found) and self._is_replaced():
                continue
            self._at = numbers.stop
            if page := [chunk for block in found if block is not None for chunk in block.read(0)]:
                return page
        return ()

    def _is_replaced(self) -> bool:
        """Whether another attempt emits by now, and with its first words removed what stood there."""
        before = self.head.first
        self.look()
        return self.head.first != before

    def wait(self, timeout: float) -> None:
        """Wait for the next block, or for the job's end."""
        self._store.wait_any([block_key(self._job, max(self._at, self.head.blocks)), job_key(self._job)], timeout)
