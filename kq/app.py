"""The app: a name, an address, and the job types that belong together."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property, partial
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from msgspec.structs import replace

from kq.aside import aside
from kq.broker import Broker, Inspector, Publisher, Publishes
from kq.clock import SYSTEM, made_at, new_id
from kq.effects.context import current_job
from kq.effects.effect import Effect
from kq.effects.ledger import KEEP
from kq.effects.observer import Observer, Observers
from kq.effects.once import OnDoubt
from kq.errors import ConfigError
from kq.events import Herald, Mouth, Tells
from kq.handles.claim import KeyClaims, rider_for
from kq.handles.handle import Handle
from kq.handles.standing import Hearing, listens
from kq.jobtype import AsyncJobType, JobType
from kq.registry import DEFAULT_QUEUE, DEFAULT_TIMEOUT, Decorator, JobOptions, Registry, check_keep
from kq.state import open_store
from kq.state.store import Store
from kq.transaction import Transaction
from kq.units import parse_duration
from kq.url import Address, parse, redact
from kq.values.config import Alerts, Config, Events, Streams
from kq.values.event import Event
from kq.values.failure import Failures, classified
from kq.values.given import load
from kq.values.job import Job, Settings
from kq.values.message import Envelope
from kq.values.outcome import Rules
from kq.values.policy import PublishPolicy, RetryPolicy
from kq.values.unique import Unique
from kq.writer import Writer

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_PRIORITY = 5


class App:
    """Job types that belong together, and the broker that carries them.

    name: told to people. url: the broker (`sqlite:///kq.db`, `redis://…`, `amqp://…`, `memory://name`);
    state: where results and other small facts are kept, the broker itself where it can.
    lease: seconds of silence after which a worker is taken for dead and its jobs go to others.
    queue, priority, timeout, retry_policy, max_lost, max_infra: for job types that say nothing else; there is always
    a timeout. failures: classes of errors, where they are not those of kq.FAILURES. version: of the code, for jobs'
    histories; by default a digest of the files that define job types. keep: seconds that results are kept; 0: none.
    submit_timeout: seconds that one submit may take in all.
    What is not said here is read from the environment and the config file when it is first needed (kq.values.given).
    """

    def __init__(
        self,
        name: str = "kq",
        url: str | None = None,
        *,
        state: str | None = None,
        lease: float | None = None,
        queue: str = DEFAULT_QUEUE,
        priority: int = DEFAULT_PRIORITY,
        timeout: float = DEFAULT_TIMEOUT,
        retry_policy: RetryPolicy | None = None,
        failures: Failures | None = None,
        max_lost: int = 3,
        max_infra: int = 15,
        version: str = "",
        keep: float | None = None,
        submit_timeout: float | None = None,
        publish_retry_policy: PublishPolicy | None = None,
    ) -> None:
        for setting, seconds in (("lease", lease), ("submit_timeout", submit_timeout)):
            if not (seconds is None or isinstance(seconds, int | float)):
                raise TypeError(f"{setting} {seconds!r} is no number; use seconds")
        if lease is not None and not 1 <= lease <= 86400:
            raise ConfigError(f"lease {lease} s is out of range; use 1 s to a day, 15 s by default")
        if submit_timeout is not None and not 0 < submit_timeout <= 86400:
            raise ConfigError(f"submit_timeout {submit_timeout} s is out of range; use more than 0 s, 5 s by default")
        check_keep(keep)
        self.name = name
        self.version = version
        self.defaults = Settings(queue=queue, priority=priority, timeout=timeout, retry_policy=retry_policy)
        self.rules = Rules(retry_policy, classified(failures), max_lost=max_lost, max_infra=max_infra)
        self._registry = Registry(self, self.defaults, self.rules)
        self.jobs = self._registry.types
        #: The queues of which one job runs at a time.
        self.singletons = self._registry.singletons
        self.observers = Observers()
        self.module = sys._getframe(1).f_globals.get("__name__", "")
        self._url = url
        self._state = state
        self._lease = lease
        self._keep = keep
        self._submit_timeout = submit_timeout
        self._publishing = publish_retry_policy
        self._publisher: Publishes | None = None
        self._mouth: Callable[[], Tells] | None = None
        self._transaction: ContextVar[Transaction | None] = ContextVar(f"kq-transaction-{name}", default=None)

    def __repr__(self) -> str:
        return f"<app {self.name} at {self.address.redacted}>"

    # Settings: what was said here counts before what the environment and the config file say.

    @cached_property
    def _config(self) -> Config:
        return load().config

    @property
    def lease(self) -> float:
        """Seconds of silence after which a worker is taken for dead."""
        return self._config.lease.length if self._lease is None else self._lease

    @property
    def mail(self) -> str:
        """The server of mailers that name none: `mail:` of the settings."""
        return self._config.mail

    @property
    def alerts(self) -> Alerts:
        """Who is told of what a human must look at: `alerts:` of the settings."""
        return self._config.alerts

    @property
    def keep(self) -> float:
        """Seconds that results are kept."""
        return self._config.results.keep if self._keep is None else self._keep

    def kept(self, type: str) -> float:
        """Seconds that results of that job type are kept."""
        known = self.jobs.get(type)
        return self.keep if known is None or known.keep is None else known.keep

    @property
    def remembering(self) -> Events:
        """What is remembered of events: `events:` of the settings."""
        return self._config.events

    @property
    def most_retries(self) -> int:
        """How many retries the policy of a message may grant: `worker.max_retries` of the settings."""
        return self._config.worker.max_retries

    @property
    def streams(self) -> Streams:
        """How much of what a job emits is kept: `streams:` of the settings."""
        return self._config.streams

    @property
    def submit_timeout(self) -> float:
        """Seconds that one submit may take in all."""
        return self._config.submit_timeout if self._submit_timeout is None else self._submit_timeout

    @property
    def publishing(self) -> PublishPolicy:
        """How a submit that failed is repeated."""
        return self._publishing or self._config.publish_retry_policy

    # Where things are.

    def configure(self, *, url: str | None = None, state: str | None = None) -> None:
        """Use another broker or state store; before anything was submitted."""
        if self._publisher is not None:
            raise ConfigError(f"app {self.name!r} is in use; configure it before the first submit")
        self._url = url or self._url
        self._state = state or self._state
        for name in ("address", "broker", "store", "herald"):
            self.__dict__.pop(name, None)

    @cached_property
    def address(self) -> Address:
        """The broker's address. Raises ConfigError for a URL that is none."""
        return parse(self._url or self._config.url, self._state or self._config.state)

    @cached_property
    def broker(self) -> Broker:
        return Broker(
            self.address,
            submit_timeout=self.submit_timeout,
            publishing=self.publishing,
            singletons=self.singletons,
        )

    @cached_property
    def store(self) -> Store:
        """The state store: results and other small facts."""
        return self.open_store(self.submit_timeout, look=True)

    def open_store(self, timeout: float, *, look: bool = False) -> Store:
        """A connection of one's own to the state store. timeout: seconds that each of its verbs may take.

        look: a file is not created before something is written.
        """
        if self.broker.elsewhere:
            return self.store
        address = self.address
        try:
            return open_store(
                address.state,
                timeout=timeout,
                make_folder=address.state_stays_here,
                look=look,
                **address.state_options,
            )
        except ValueError as error:
            raise ConfigError(f"state store {redact(address.state)}: {error}") from error
        except (PermissionError, FileNotFoundError, FileExistsError, NotADirectoryError) as error:
            # A service's user often has no home to keep anything in.
            where, why = redact(address.state), error.strerror
            fix = "Name another place with state: in kq.yaml, KQ_STATE or XDG_STATE_HOME."
            raise ConfigError(f"this user can't write to the state store {where}: {why}", fix=fix) from error

    @property
    def publisher(self) -> Publishes:
        if self._publisher is None:
            self._publisher = Publisher(self.broker)
        return self._publisher

    def connect(self, publisher: Publishes, store: Store, mouth: Callable[[], Tells] | None = None) -> None:
        """Use these instead of connections of its own. mouth: what tells events."""
        self._publisher = publisher
        self.__dict__["store"] = store
        self._mouth = mouth

    @cached_property
    def herald(self) -> Herald:
        """Tells events of this process, while somebody listens."""
        return self.heralding("events")

    def heralding(self, what: Hearing) -> Herald:
        """What tells events, or logs, of this process while somebody listens for that."""
        return Herald(self._mouth or partial(Mouth, self.broker), lambda: listens(self.store, what))

    def inspector(self) -> Inspector:
        """A fresh look at the broker; close it after use."""
        return Inspector(self.broker)

    def apart(self) -> App:
        """The same app with connections of its own, where it has any."""
        other = copy.copy(self)
        other.__dict__.pop("herald", None)
        other.__dict__.pop("_writer", None)
        if not self.broker.elsewhere:
            other._publisher = None
            other.__dict__.pop("store", None)
        return other

    def close(self) -> None:
        """End this process' connections. Using the app again opens others."""
        herald = self.__dict__.pop("herald", None)
        if herald is not None:
            herald.close()
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None
        store = self.__dict__.pop("store", None)
        if store is not None:
            store.close()

    # Job types.

    @overload
    def job(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncJobType[P, R]: ...
    @overload
    def job(self, function: Callable[P, R], /) -> JobType[P, R]: ...
    @overload
    def job(self, **options: Unpack[JobOptions]) -> Decorator: ...
    def job(self, function: Any = None, /, **options: Any) -> Any:  # type: ignore[misc]
        """Make a job type of a function: `@app.job` or `@app.job(queue=…)`.

        name: by which messages call it, `module.function` by default. queue, priority (0..9),
        timeout (seconds an attempt may take): the app's by default.
        unique: which of its jobs are the same, and what becomes of the second: text, kq.by_arguments, a function that
        makes text of the arguments, or a kq.Unique, which says it all.
        retry_policy: when failed attempts are repeated. Without one, here and in the app, only what is known to pass is
        retried. singleton: its queue is one of which one job runs at a time, over all workers and hosts (promise C12);
        that is said by all job types of the queue, and without queue it is called after the job type.
        failures: the classes of errors, "passing", "final", "storage" or "network", by exception class or
        dotted name, where they are neither those of the app nor those of kq.FAILURES.
        fallback: job types, or their names, that run instead, in order, where this one would be buried for its
        failures: the same job with the same arguments, in their queues, with their timeouts and policies. Not where the
        job itself asks for a human (kq.Bury, a side effect in doubt).
        on_timeout: "fallback", where there is one the default; "retry" (by policy), otherwise the default; "bury" or
        "revoke". on_lost: what becomes of it when its executor or worker dies under it: "retry", until max_lost have
        died; "fallback" or "bury": at most one start. Where there is no fallback the job is buried instead.
        max_infra: it is buried when bad storage or a bad network have ended so many attempts.
        keep: seconds that results are kept. rehearse: whether its jobs may be rehearsed, which does to the world what
        they do there without kq's ledger (kq jobs rehearse).
        Raises ConfigError when the name is taken, failures names no class, or others say something else of the queue.
        """
        if function is None:
            return Decorator(self._registry, options)
        return self._registry.add(function)

    @overload
    def effect(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncJobType[P, R]: ...
    @overload
    def effect(self, function: Callable[P, R], /) -> JobType[P, R]: ...
    @overload
    def effect(
        self,
        *,
        key: Callable[..., str] | None = None,
        on_doubt: OnDoubt = "bury",
        check: Callable[..., bool | None] | None = None,
        remember: float = KEEP,
        **options: Unpack[JobOptions],
    ) -> Decorator: ...
    def effect(  # type: ignore[misc]
        self,
        function: Any = None,
        /,
        *,
        key: Callable[..., str] | None = None,
        on_doubt: OnDoubt = "bury",
        check: Callable[..., bool | None] | None = None,
        remember: float = KEEP,
        **options: Any,
    ) -> Any:
        """Make a job type whose jobs do something that must happen once: `@app.effect`, or with terms (promise C13).

        What was done under a key is not done again: the job completes with what was recorded then. The function may
        still be called here and now, without that memory.
        key: from the job's arguments; by default a digest of all of them. on_doubt: when it was begun and nobody
        knows whether it happened: "bury" the job for a human, "repeat" it (at least once), "skip" it (at most
        once), or leave it in doubt and let the job's "fallback" answer. check: called with the job's arguments in that
        case: True it happened, False it did not, None it can't tell. remember: seconds, a year by default. options: as
        for job().
        An error leaves a doubt too, unless it proves that nothing happened: raise kq.NotDone for that.
        Raises ValueError for an on_doubt that is none, or remember out of range.
        """
        effect = partial(Effect, key=key, on_doubt=on_doubt, check=check, keep=remember)
        decorator = Decorator(self._registry, options, effect)
        return decorator if function is None else decorator(function)

    def observe(self, observer: Observer) -> None:
        """Let observer be told of what is submitted and of what runs. Say it where the app is defined."""
        self.observers.add(observer)

    # Submitting.

    @overload
    def submit(self, what: Job[R], /) -> Handle[R]: ...
    @overload
    def submit(self, what: str, /, *args: Any, **kwargs: Any) -> Handle[Any]: ...
    def submit(self, what: Job[Any] | str, /, *args: Any, **kwargs: Any) -> Handle[Any]:
        """Submit a job, or arguments for the job type of that name, which another program may define.

        Arguments for a type that this app does not define are not checked here, and the job goes to the
        app's default queue. Raises as JobType.submit does.
        """
        return self.submit_jobs([self.made(what, args, kwargs)])[0]

    async def submit_async(self, what: Job[R] | str, /, *args: Any, **kwargs: Any) -> Handle[R]:
        """submit(), without blocking the event loop."""
        job: Job[Any] = self.made(what, args, kwargs)
        return (await aside(self.submit_jobs, [job]))[0]

    def submit_many(self, jobs: Iterable[Job[R]]) -> list[Handle[R]]:
        """Submit jobs, all or nothing, in one round trip (promise C16)."""
        return self.submit_jobs(jobs)

    def later(self, job: Job[R], *, hold: float | str = 0.0) -> Handle[R]:
        """Submit job when the job that calls this has completed (see CurrentJob.later); outside of a worker, at once.

        So a function that is a job type, and is called here and now too, does in both cases what it should. hold: an
        undo window, in seconds or as "5m", in both.
        """
        current = current_job()
        return self.submit(job.held(parse_duration(hold))) if current is None else current.later(job, hold=hold)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Submit together what the block submits, when it ends; nothing when it raises (promise C16).

        Handles are given at once; the jobs exist only after the block. It reaches the tasks that are started in the
        block, as long as that lasts: what they submit later goes out at once.
        """
        outer = self._transaction.get()
        if outer is not None and outer.open:
            yield  # an inner transaction is part of the outer one
            return
        transaction = Transaction()
        token = self._transaction.set(transaction)
        try:
            yield
        except BaseException:
            transaction.end()
            raise
        finally:
            self._transaction.reset(token)
        if jobs := transaction.end():
            self.submit_jobs(jobs)

    def submit_jobs(self, jobs: Iterable[Job[Any]]) -> list[Handle[Any]]:
        """Store jobs, all or none, and return their handles in order.

        A job whose unique key is held by another is not stored: its handle is the other's.
        """
        jobs = list(jobs)
        transaction = self._transaction.get()
        if len(jobs) > 1 or transaction is not None:
            for job in jobs:
                _check_company(job)
        if transaction is not None and transaction.add(jobs):
            return [Handle(job.id, self._registry.queue_of(job), self) for job in jobs]
        until = time.monotonic() + self.submit_timeout
        made = self._writer.all_written(jobs)
        if not made:
            return []
        if not self.observers:
            return self._store(made, until)
        with self.observers.submitting([envelope for _, envelope in made]):
            return self._store([(unique, self._carrying(envelope)) for unique, envelope in made], until)

    def _store(self, made: Sequence[tuple[Unique | None, Envelope]], until: float) -> list[Handle[Any]]:
        envelopes = [envelope for _, envelope in made]
        keyed = [(unique, envelope) for unique, envelope in made if unique is not None]
        rider = rider_for(self, keyed) if keyed else None
        if (keyed and rider is None) or not self.publisher.publish(envelopes, until, rider):
            return self._store_claimed(envelopes, keyed, until, refused=rider is not None)
        if self.herald.listened:
            self.herald.say(map(_submitted, envelopes))
        return [Handle(e.id, e.queue, self) for e in envelopes]

    def _store_claimed(
        self, envelopes: Sequence[Envelope], keyed: Sequence[tuple[Unique, Envelope]], until: float, refused: bool
    ) -> list[Handle[Any]]:
        """The same for jobs whose unique keys don't ride on the publish, or are held: they are claimed before it."""
        claims = KeyClaims(self, keyed, until, refused)
        fresh = [envelope for envelope in envelopes if envelope.id not in claims.held]
        try:
            if fresh:
                self.publisher.publish(fresh, until)
        except Exception as error:
            if getattr(error, "stored", "no") == "no":
                claims.give_up()
            raise
        claims.confirm()
        if self.herald.listened:
            self.herald.say(map(_submitted, fresh))
        return [Handle(claims.held.get(e.id, e.id), e.queue, self) for e in envelopes]

    @cached_property
    def _writer(self) -> Writer:
        return Writer(self._registry, lambda: self.store.now())

    def envelope(self, job: Job[Any]) -> Envelope:
        """The message for job. Raises TypeError for what JSON cannot carry, MessageError when it is too large."""
        return self._carrying(self._writer.written(job)[1])

    def _carrying(self, envelope: Envelope) -> Envelope:
        """envelope, with what observers send along."""
        if not self.observers:
            return envelope
        return replace(envelope, headers={**self.observers.carried(), **envelope.headers})

    def made(
        self, what: Job[Any] | str, args: Sequence[Any], kwargs: Mapping[str, Any], said: Settings | None = None
    ) -> Job[Any]:
        """A job for the job type of that name, not yet submitted, or what itself. Raises TypeError as JobType.job does.

        said: counts before what the job type, or of one that this app does not define the app, says.
        """
        if isinstance(what, Job):
            return what
        known, usual = self.jobs.get(what), self.defaults
        if known is not None:
            known.check(args, kwargs)
            usual = known.settings
        return Job(new_id(), what, tuple(args), dict(kwargs), usual if said is None else said.over(usual))


def _check_company(job: Job[Any]) -> None:
    """Raise ValueError for a job that may take the place of another: that is a step by itself."""
    if isinstance(job.settings.unique, Unique) and job.settings.unique.replaces:
        raise ValueError(f"{job.type} may take the place of another job, which is a step by itself; submit it alone")


def _submitted(envelope: Envelope) -> Event:
    headers = envelope.headers
    return Event(
        event="submitted",
        at=headers.get("submitted") or made_at(envelope.id) or SYSTEM.now(),
        job=envelope.id,
        type=headers["type"],
        queue=envelope.queue,
        next=headers.get("due"),
    )
