"""What the state store keeps of a job, and the names under which kq keeps things there."""

from __future__ import annotations

import hashlib

import msgspec

from kq.values.job import ENDED, LATEST, State
from kq.values.message import Attempt, Envelope
from kq.values.reading import reader

#: A result larger than this, in bytes of JSON, is refused: workers and state stores hold it whole.
RESULT_LIMIT = 16 * 1024 * 1024


#: Control's keys: who makes the rounds, what happened in the last minutes, and what lies buried for what.
SEAT, HISTORY, GROUPS = "control:seat", "control:history", "control:buried"


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a job ended (or that it was buried). Kept under job_key(id) for as long as results are kept.

    value: the result as JSON. ended: seconds since the epoch by the worker's clock. history: attempts that did not
    complete it. type: the job type that ended it; degraded_by: which of the fallbacks that is, 0 for none of them.
    staged: jobs that are to be submitted because it completed, until they are. log: the last lines that it logged, if
    it completed. took, cpu, rss: what that cost: seconds, seconds of processor time, bytes as in Attempt; only of what
    took a millisecond or longer.
    """

    state: State
    value: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    traceback: str = ""
    ended: float = 0.0
    worker: str = ""
    attempts: int = 0
    type: str = ""
    queue: str = ""
    log: str = ""
    history: tuple[Attempt, ...] = ()
    degraded_by: int = 0
    staged: tuple[Envelope, ...] = ()
    took: float | None = None
    cpu: float | None = None
    rss: int = 0

    @property
    def is_over(self) -> bool:
        """Whether the job has ended: what is there of it is a copy."""
        return self.state in ENDED


class Late(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker said of a job when others spoke for it already: it was refused (promise C4).

    attempt: its outcome is one of the history's, or "completed". digest: of the result, as JSON.
    """

    attempt: Attempt
    digest: str = ""


class Start(msgspec.Struct, frozen=True):
    """The start record of a job that may be running twice or may be killing its workers (promises C4, C7).

    holder: the delivery that may speak for it; starts: how many were recorded.
    """

    holder: str
    starts: int


def digest(value: bytes) -> str:
    """By which results, as JSON, are compared."""
    return hashlib.sha256(value).hexdigest()[:32]


class Cut(msgspec.Struct, frozen=True):
    """That an attempt of a job was killed, or interrupted: whatever it was at, it is at it no more.

    at: seconds since the epoch by the clock of worker, where that was.
    """

    worker: str
    at: float


class Claim(msgspec.Struct, frozen=True, omit_defaults=True):
    """The claim of a job on a unique key while nobody knows whether it is there.

    queue: where it is published. buried: it has the key also while it lies buried.
    """

    job: str
    queue: str
    buried: bool = False


def job_key(job: str) -> str:
    return f"job:{job}"


def late_key(job: str) -> str:
    return f"late:{job}"


def meant_key(job: str) -> str:
    """What somebody is about to do to a job by hand."""
    return f"meant:{job}"


def start_key(job: str) -> str:
    return f"start:{job}"


def cut_key(job: str) -> str:
    return f"cut:{job}"


def place_key(job: str) -> str:
    """Where the queue of a job is named that has gone to another one than it was submitted to."""
    return f"place:{job}"


def stream_key(job: str) -> str:
    """Where it stands how far the stream of a job is."""
    return f"stream:{job}"


def block_key(job: str, number: int) -> str:
    """Where a block of the job's stream is."""
    return f"block:{number}:{job}"


def unique_key(key: str) -> str:
    return f"unique:{key}"


def turn_key(key: str) -> str:
    return f"turn:{key}"


def claim_key(key: str) -> str:
    return f"claim:{key}"


def worker_key(worker: str) -> str:
    return f"worker:{worker}"


def tally_key(process: str) -> str:
    """Where a worker's process keeps its tally, whatever its name is after a lost lease."""
    return f"tally:{process}"


def lease_key(worker: str) -> str:
    return f"lease:{worker}"


def answer_key(token: str, worker: str) -> str:
    """Where a worker answers the nudge that carried token."""
    return f"answer:{token}:{worker}"


def begun_key(job: str, effect: str = "") -> str:
    """Where it is noted that job has begun the side effect whose key's digest that is; of all of them, a prefix.

    Of many families by the job's digest: a store may look through a whole one to find what begins with a prefix, and a
    month has millions of these.
    """
    return f"begun-{hashlib.sha256(job.encode()).hexdigest()[:3]}:{job}:{effect}"


def audit_key(at: float, act: str) -> str:
    """at: seconds since the epoch; the newest key sorts first. act: an id of it."""
    return f"audit:{int(LATEST) * 1_000_000 - int(at * 1_000_000):018d}.{act}"


def overdue_key(job: str, since: float) -> str:
    """What is there when somebody was told that this run of a job takes long."""
    return f"overdue:{job}:{since}"


encode = msgspec.json.Encoder().encode
decode_record = reader(Record)
decode_late = reader(Late)
decode_claim = reader(Claim)
decode_cut = reader(Cut)
decode_start = reader(Start)
