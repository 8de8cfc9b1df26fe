"""The message of a job, made when it is submitted: its head, its arguments, and the unique key that it claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from kq.clock import SYSTEM, made_at
from kq.errors import MessageError
from kq.registry import Registry
from kq.values.job import Job
from kq.values.message import BODY_LIMIT, IN_ITS_ID, Envelope, Head, Stage, encode_bodies, encode_body, encode_head
from kq.values.policy import YEAR
from kq.values.unique import ByArguments, Unique, unique_of

#: Seconds after which a job that was made, and is submitted, may have been submitted before: nobody keeps a list.
FRESH = 1.0
#: Seconds after which a job that was made has to say when it was submitted; before that its id does.
AT_ONCE = 0.01


class Writer:
    """Writes down the jobs of one app. now: what time it is at the state store."""

    def __init__(self, registry: Registry, now: Callable[[], float]) -> None:
        self._registry = registry
        self._now = now

    def all_written(self, jobs: Sequence[Job[Any]]) -> list[tuple[Unique | None, Envelope]]:
        """written() of jobs that are stored together. To write many takes a while: by that much none is late."""
        made = [self.written(job) for job in jobs]
        if len(made) == 1:
            return made
        now = SYSTEM.now()
        return [(unique, _on_time(job, envelope, now)) for job, (unique, envelope) in zip(jobs, made, strict=True)]

    def written(self, job: Job[Any]) -> tuple[Unique | None, Envelope]:
        """What was said of the job's unique key, which is text now, and its message.

        Raises TypeError for what JSON cannot carry, MessageError when it is too large.
        """
        said = job.settings.unique
        if said is None:
            return None, self._message(job)
        unique = self._keyed(unique_of(said), job)
        if unique.conflict == "debounce" and not job.settings.delay:
            raise ValueError(f'{job.type} is unique by {unique.key!r} with conflict="debounce", which needs a delay')
        return unique, self._message(job, unique)

    def _keyed(self, unique: Unique, job: Job[Any]) -> Unique:
        """unique with a key that is text."""
        key = unique.key
        if isinstance(key, str):
            return unique
        known = self._registry.types.get(job.type)
        if isinstance(key, ByArguments):
            if known is None:
                raise ValueError(f"{job.type} is not defined here, so its arguments make no key; give it one of text")
            return replace(unique, key=f"{job.type}:{known.signature.digest(job.args, job.kwargs, key.names)}")
        made: object = key(*job.args, **job.kwargs)
        if not isinstance(made, str) or not made:
            raise TypeError(f"the unique key of {job.type} is {made!r}; its function must return some text")
        return replace(unique, key=made)

    def _message(self, job: Job[Any], unique: Unique | None = None) -> Envelope:
        settings = job.settings
        body = encode_body(job.args, job.kwargs)
        if job.fallback:
            body = encode_bodies([body, *(encode_body(each.args, each.kwargs) for each in job.fallback)])
        if len(body) > BODY_LIMIT:
            raise MessageError(
                f"the arguments of {job.type} take {len(body):,} bytes, more than {BODY_LIMIT:,}",
                fix="Store the data elsewhere and pass its name.",
            )
        policy = settings.retry_policy
        now = SYSTEM.now()
        delay = settings.delay if settings.at is None else max(0.0, settings.at - now)
        if delay is not None and delay > YEAR:
            raise ValueError(f"at {settings.at} is more than a year away; submit it later")
        delay = max(delay or 0.0, settings.hold or 0.0)
        key = holds = at_least = at_most = None
        if unique is not None:
            key, holds = str(unique.key), unique.holds
            at_least, at_most = self._bounds(unique)
            if unique.at_most is not None:
                delay = min(delay, unique.at_most)
        made = made_at(job.id)
        old = float("inf") if made is None else now - made
        head = Head(
            id=job.id,
            type=job.type,
            submitted=IN_ITS_ID if 0 <= old < AT_ONCE else now,
            due=now + delay if delay else None,
            again=old > FRESH,
            timeout=settings.timeout,
            deadline=settings.deadline,
            unique=key,
            unique_until=holds,
            unique_at_least=at_least,
            unique_at_most=at_most,
            retry_policy=None if policy is None else policy.to_data(),
            fallback=tuple(map(self._stage, job.fallback)) if job.fallback else None,
            held=bool(settings.hold),
        )
        priority = self._registry.defaults.priority if settings.priority is None else settings.priority
        return Envelope(job.id, self._registry.queue_of(job), body, encode_head(head), priority or 0, delay)

    def _bounds(self, unique: Unique) -> tuple[float | None, float | None]:
        """Until when it holds its key at least, and its delay may begin anew, by the state store's clock."""
        if unique.period is None and unique.at_most is None:
            return None, None
        now = self._now()
        return (
            None if unique.period is None else now + unique.period,
            None if unique.at_most is None else now + unique.at_most,
        )

    def _stage(self, job: Job[Any]) -> Stage:
        policy = job.settings.retry_policy
        return Stage(
            job.type, self._registry.queue_of(job), job.settings.timeout, None if policy is None else policy.to_data()
        )


def _on_time(job: Job[Any], envelope: Envelope, now: float) -> Envelope:
    """envelope, so that a job which is to start at an instant does when it is stored now."""
    if job.settings.at is None or job.settings.hold:
        return envelope
    return replace(envelope, delay=min(envelope.delay, max(0.0, job.settings.at - now)))
