"""Events: what happens to jobs and workers, told to whoever listens. As JSON they are part of the protocol.

They travel in batches, each a JSON list, over the topic exchange `kq.events`; docs/protocol.md says under which keys.
Nothing depends on them: they are told when somebody listens, and rather not at all than late.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

#: What may happen to a job, and what its code may say.
MOVES = {
    "submitted": "it was stored in its queue",
    "started": "an attempt began",
    "progress": "its code said how far it is",
    "completed": "it has ended well",
    "failed": "an attempt failed, and the job is tried again",
    "fell back": "an attempt failed, and another job type runs instead",
    "buried": "it was set aside for a human",
    "revoked": "it has ended because somebody wanted that",
    "expired": "it has ended because its deadline passed before it started",
    "given back": "it is ready again at its old place, as if it had not been taken",
    "parked": "it waits aside, as jobs of its type are paused",
    "passed on": "it is left to another worker",
    "overdue": "it has run for most of the time that it may",
}
#: Those with which a job has ended, or lies aside for a human.
ENDS = frozenset({"completed", "buried", "revoked", "expired"})
#: What may happen to a worker.
OF_WORKERS = {
    "ready": "it takes jobs",
    "stopping": "it takes no more jobs and ends",
    "ended": "it has ended",
    "retired": "control found it dead, and its jobs go to others",
}
#: What else there is: a line of a log, and how many events were not told because there were too many.
OTHERS = {"log": "its code, or another program, logged a line", "lost": "so many events were not told"}


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event. event: its name. at: when it happened, in seconds since the epoch, by the state store's clock.

    attempt: 1 for the first start. seconds: how long the attempt took. error: the exception's class; message: one line,
    of the error, the progress or the log. next: when the job is tried again. n, of: how far it is; of lost, how many.
    level, logger: of a line of a log.
    """

    event: str
    at: float
    job: str = ""
    type: str = ""
    queue: str = ""
    worker: str = ""
    attempt: int = 0
    seconds: float | None = None
    error: str = ""
    message: str = ""
    next: float | None = None
    n: float | None = None
    of: float | None = None
    level: str = ""
    logger: str = ""

    @property
    def key(self) -> str:
        """The routing key under which it is told: what it is about, and for jobs and logs their queue."""
        if self.event == "log":
            return f"log.{self.queue}" if self.queue else "log"
        return f"job.{self.queue}" if self.job else "worker"


def followed_key(job: str) -> str:
    """The routing key under which the moves of one job are told to those who follow it."""
    return f"one.{job}"


def batches(events: Iterable[tuple[str, Event]]) -> list[tuple[str, bytes]]:
    """Messages that tell events, in order for each routing key: the key and the body. events: with their keys."""
    by_key: dict[str, list[Event]] = {}
    for key, event in events:
        by_key.setdefault(key, []).append(event)
    return [(key, encode(batch)) for key, batch in by_key.items()]


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(list[Event]).decode
