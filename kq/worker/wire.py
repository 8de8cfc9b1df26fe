"""What supervisor, nursery and executors say to each other over socket pairs.

A frame is four bytes of length (little-endian) and msgpack. Nothing here comes from a broker or leaves the host.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from kq.values.message import Envelope, Stage
from kq.values.policy import MESSAGE_RETRIES
from kq.values.redaction import redacted_end
from kq.worker import slate
from kq.worker.slate import NOTHING, Slate, Written

_LENGTH = struct.Struct("<I")
_SEQ = struct.Struct("Q")

_read_held = ctypes.PyDLL(None).read
_read_held.argtypes, _read_held.restype = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t), ctypes.c_ssize_t

#: Bytes of the log that are kept.
LOG_SIZE = 4096
#: Bytes that are read of where jobs are.
TOLD_SIZE = 1 << 20
#: Bytes that a pipe holds when nobody asks for more.
PIPE_SIZE = 65536
#: So many jobs are offered at once: their claims fit into the smallest pipe, one page, whole or not at all.
OFFERED = 256


class Circumstances(msgspec.Struct, array_like=True, gc=False):
    """What observers of an app want to know of a job. headers: what the application sent along with it.

    failed, lost, infra: its counters. retry_policy, fallback: what its message says of them; None where it does not.
    """

    headers: dict[str, str]
    priority: int
    failed: int
    lost: int
    infra: int
    retry_policy: dict[str, Any] | None
    fallback: bool | None


class Run(msgspec.Struct, array_like=True, gc=False):
    """To an executor: run this job. seq: counts the jobs given to this executor, from 1. timeout: seconds.

    limit: so many of its queue may run there at a time; 0: all. circumstances: None where nobody observes the app.
    """

    seq: int
    id: str
    type: str
    queue: str
    body: bytes
    attempt: int
    timeout: float
    degraded_by: int = 0
    limit: int = 0
    circumstances: Circumstances | None = None


class Order(msgspec.Struct, array_like=True):
    """To an executor: jobs to run in this order, for the worker of that name; the seq of one to interrupt; leave."""

    run: list[Run] = []
    interrupt: int = 0
    leave: bool = False
    worker: str = ""


#: What a job wrote there in its executor's place is refused where it is no number that an executor says: it would end
#: the supervisor that reckons with it, or make what that says unreadable.
SPAN = 1e10
Span = Annotated[float, msgspec.Meta(ge=0.0, le=SPAN)]
Number = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class Ended(msgspec.Struct, array_like=True, gc=False):
    """From an executor: one execution is over. kind: one of the names below; value: the result as JSON.

    staged: the jobs that it wants submitted now that it has completed. log: the last lines that it logged. effects: how
    many of its side effects came to what. cpu: seconds of processor time, rss: bytes that its executor held at most;
    None and 0 where nobody measured that.
    """

    seq: int
    kind: str
    value: bytes = b""
    names: tuple[str, ...] = ()
    message: str = ""
    traceback: str = ""
    delay: Span | None = None
    took: Span = 0.0
    staged: tuple[Envelope, ...] = ()
    log: str = ""
    effects: Mapping[str, Number] | None = None
    cpu: Span | None = None
    rss: Number = 0


DONE, RAISED, RETRY, INTERRUPTED, UNUSABLE, BESET = "d", "r", "a", "i", "u", "b"


class Entry(msgspec.Struct, frozen=True):
    """A job type as data, for a supervisor that does not import the application."""

    name: str
    queue: str
    timeout: float
    retry_policy: dict[str, Any] | None
    failures: dict[str, str]
    on_timeout: str | None
    on_lost: str
    max_lost: int
    max_infra: int
    keep: float
    singleton: bool
    fallback: tuple[Stage, ...] = ()
    parameters: tuple[str, ...] = ()
    most_retries: int = MESSAGE_RETRIES


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """To the nursery, before all else: what to import, and where broker and state are. May hold passwords.

    debuggable: whether it and its executors may leave core files and be traced.
    With it come the descriptors of a lapse and of a tie.
    """

    where: str
    url: str
    state: str
    debuggable: bool = False


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """From the nursery: the application is imported, or why not. code: its version. observed: somebody observes it."""

    entries: list[Entry] = []
    error: str = ""
    code: str = ""
    observed: bool = False


class Spawned(msgspec.Struct, frozen=True, tag="spawned"):
    """From the nursery: executor number lives as process pid."""

    number: int
    pid: int


class Unborn(msgspec.Struct, frozen=True, tag="unborn"):
    """From the nursery: executor number will not live; error: the system's number of why."""

    number: int
    error: int


class Exited(msgspec.Struct, frozen=True, tag="exited"):
    """From the nursery: the process ended; status as of waitpid."""

    pid: int
    status: int


class Spawn(msgspec.Struct, frozen=True):
    """To the nursery, with descriptors of a socket, a page and claims: start executor number with so many slots.

    relayed: a fourth descriptor, of a socket, carries what its jobs publish and ask. apart: its parent is to be a
    process that does nothing else.
    """

    number: int
    pool: str
    slots: int
    relayed: bool = False
    apart: bool = False


_encode = msgspec.msgpack.Encoder().encode


def frame(message: msgspec.Struct) -> bytes:
    """message as bytes for the wire."""
    data = _encode(message)
    return _LENGTH.pack(len(data)) + data


class Frames:
    """Splits a stream of bytes into frames.

    limit: bytes that a frame may have; what announces more is no frame but what somebody else wrote there.
    """

    def __init__(self, limit: int = 1 << 32) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> Iterator[memoryview | bytes]:
        """Take in what was read; yields what is whole. Raises ValueError for a frame beyond the limit."""
        buffer = self._buffer
        buffer += data
        start, end = 0, len(buffer)
        while end - start >= 4:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > self._limit:
                raise ValueError(f"a frame of {length} bytes")
            if end - start - 4 < length:
                break
            yield bytes(buffer[start + 4 : start + 4 + length])
            start += 4 + length
        if start:
            del buffer[:start]


def come(sock: socket.socket) -> bytes | None:
    """What has come through sock, which does not block; None when nothing has, nothing at all when its end is gone."""
    try:
        return sock.recv(1 << 16)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def read_frame(sock: socket.socket) -> bytes | None:
    """The next frame of a blocking socket; None when the other side is gone."""
    head = _read(sock, 4)
    return None if head is None else _read(sock, _LENGTH.unpack(head)[0])


def _read(sock: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(size - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)


class Claims:
    """Which of the jobs that were sent to an executor it may still begin: a pipe that both its ends can read.

    The supervisor writes the seq of each job before it sends the job; the executor reads up to its seq before it begins
    one. So the supervisor, by reading what is left, takes back what did not begin, whatever the executor is at, and no
    job is both taken back and begun. One that begins before others that were sent first claims these too.
    """

    def __init__(self, jobs: int, descriptors: tuple[int, int] | None = None) -> None:
        """jobs: how many can be sent and not begun at a time."""
        self.reader, self._writer = descriptors or os.pipe()
        self._last = 0
        self._claimed: set[int] = set()  # and not begun
        self._entries = (ctypes.c_uint64 * jobs)()
        os.set_blocking(self.reader, False)
        if self._writer >= 0:
            os.set_blocking(self._writer, False)
            if jobs * _SEQ.size > PIPE_SIZE:
                # A user who has many pipes is not given larger ones: offer() says when there is no room.
                with contextlib.suppress(PermissionError):
                    fcntl.fcntl(self._writer, fcntl.F_SETPIPE_SZ, jobs * _SEQ.size)

    def offer(self, seqs: Sequence[int]) -> bool:
        """Let the executor begin these, OFFERED of them at most; False when there is no room for all, and none may."""
        try:
            os.write(self._writer, b"".join(map(_SEQ.pack, seqs)))
        except BlockingIOError:
            return False
        return True

    def claim(self, seq: int, beside: int = 0) -> bool:
        """Whether this job may begin; else it was taken back. beside: how many of the next ones begin with it."""
        while self._last < seq and (following := self._next(1 + beside)):
            self._last = following[-1]
            if following == [seq]:
                return True
            self._claimed.update(following)
        if seq not in self._claimed:
            return False
        self._claimed.remove(seq)
        return True

    def _next(self, most: int) -> list[int]:
        """The next entries; none when there is none.

        Read without letting go of the interpreter: os.read() lets another thread go on, and to wait for its own turn
        again costs a thread as much as a short job.
        """
        size = _read_held(self.reader, self._entries, min(most, len(self._entries)) * _SEQ.size)
        if size == _SEQ.size:
            return [self._entries[0]]
        if size > 0:
            return self._entries[: size // _SEQ.size]
        with contextlib.suppress(BlockingIOError):
            return list(_SEQ.unpack(os.read(self.reader, _SEQ.size)))  # which raises what is wrong
        return []

    def take_back(self) -> set[int]:
        """The seqs of all jobs that have not begun, and now will not."""
        seqs: set[int] = set()
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.reader, PIPE_SIZE):
                seqs.update(seq for (seq,) in _SEQ.iter_unpack(data))
        return seqs

    def close(self) -> None:
        os.close(self.reader)
        os.close(self._writer)


class Page:
    """Memory shared by a supervisor and one executor: which job each slot runs, or ran last.

    A slot is marked just before it does anything for a job, and not unmarked: the next job overwrites it. So when an
    executor dies, those jobs whose end nobody heard of are known apart: the marked ones had started; of the others
    some had ended at most, so short that their ends were to be told together. Two cells are the supervisor's: the seq
    of the job that a SIGUSR1 is meant for, and of the one whose stack is asked for. Each slot has a slate for its job
    to write on. At the end stands what was logged last, to be read when nobody can be asked. Behind all that the
    descriptor stands, and an executor writes there where a job is (see lookout).
    """

    def __init__(self, slots: int, descriptor: int | None = None) -> None:
        self.slots = slots
        slates = (2 + 2 * slots) * _SEQ.size
        # Where a count of all bytes logged stands, and then the last of them.
        self._log = slates + slots * slate.SIZE
        self._size = size = self._log + _SEQ.size + LOG_SIZE
        self.descriptor = memory(size) if descriptor is None else descriptor
        try:
            self._memory = mmap.mmap(self.descriptor, size)
        except OSError:
            os.close(self.descriptor)
            raise
        self._cells = memoryview(self._memory)[: self._log + _SEQ.size].cast("Q")
        #: What the job of each slot writes on.
        self.slates = [Slate(self._memory, slates + slot * slate.SIZE) for slot in range(slots)]

    def written(self) -> dict[int, Written]:
        """What jobs have written down, by seq."""
        found = {}
        for slot in range(self.slots):
            seq = self._seq(slot)
            if seq and (written := self.slates[slot].read()) != NOTHING:
                found[seq] = written
        return found

    def mark(self, slot: int, seq: int) -> None:
        self.slates[slot].wipe()
        self._cells[2 + slot] = seq

    def marked(self) -> set[int]:
        """Seqs of the jobs that run or ran last."""
        return {seq for slot in range(self.slots) if (seq := self._seq(slot))}

    def slot_of(self, seq: int) -> int | None:
        """The slot that runs that job, or ran it last."""
        return next((slot for slot in range(self.slots) if self._seq(slot) == seq), None)

    def _seq(self, slot: int) -> int:
        return self._cells[2 + slot]

    def sit(self, slot: int) -> None:
        """This thread runs the jobs of slot from now on."""
        self._cells[2 + self.slots + slot] = threading.get_ident()

    def thread_of(self, seq: int) -> int:
        """The thread that runs that job; 0 where it is not known."""
        slot = self.slot_of(seq)
        return 0 if slot is None else self.thread(slot)

    def thread(self, slot: int) -> int:
        """The thread that runs the jobs of slot."""
        return self._cells[2 + self.slots + slot]

    def remember(self, line: str) -> None:
        """Keep a line of the log, in the place of the oldest. Two threads at once may spoil each other's: no harm."""
        data = line.encode("utf-8", "replace")
        if len(data) > LOG_SIZE:
            data = redacted_end(line, LOG_SIZE).encode("utf-8", "replace")[-LOG_SIZE:]
        (count,) = _SEQ.unpack_from(self._memory, self._log)
        start, place = self._log + _SEQ.size, count % LOG_SIZE
        first = data[: LOG_SIZE - place]
        self._memory[start + place : start + place + len(first)] = first
        self._memory[start : start + len(data) - len(first)] = data[len(first) :]
        _SEQ.pack_into(self._memory, self._log, count + len(data))

    def forget(self) -> None:
        """Begin a new log."""
        _SEQ.pack_into(self._memory, self._log, 0)

    def log(self) -> str:
        """The last lines of the log."""
        (count,) = _SEQ.unpack_from(self._memory, self._log)
        start, place = self._log + _SEQ.size, count % LOG_SIZE
        if count <= LOG_SIZE:
            return self._memory[start : start + count].decode("utf-8", "replace")
        data = self._memory[start + place : start + LOG_SIZE] + self._memory[start : start + place]
        return data.partition(b"\n")[2].decode("utf-8", "replace")

    @property
    def interrupt(self) -> int:
        return self._cells[0]

    @interrupt.setter
    def interrupt(self, seq: int) -> None:
        self._cells[0] = seq

    @property
    def asked(self) -> int:
        """The seq of the job of which somebody wants to know where it is."""
        return self._cells[1]

    def ask(self, seq: int) -> None:
        """Want to know where that job is; nothing is told of another any more."""
        os.ftruncate(self.descriptor, self._size)
        os.lseek(self.descriptor, self._size, os.SEEK_SET)
        self._cells[1] = seq

    def told(self) -> bytes:
        """What has been told since."""
        return os.pread(self.descriptor, TOLD_SIZE, self._size)

    def close(self) -> None:
        self._cells.release()
        self._memory.close()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def memory(size: int) -> int:
    """A descriptor of so many zero bytes of memory, or of a file where the system has no such thing.

    They are written, and by that taken: on a full disk the first use of a sparse file ends the process. That leaves
    the offset at the end, where a job that writes to every descriptor it finds does no harm.
    """
    make = getattr(os, "memfd_create", None)
    with tempfile.TemporaryFile(buffering=0) if make is None else open(make("kq-page"), "wb", buffering=0) as file:
        file.write(bytes(size))
        return os.dup(file.fileno())
