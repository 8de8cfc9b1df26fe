"""Job types: functions that can be submitted, with what was said of them once and for all."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from kq.aside import aside
from kq.clock import new_id
from kq.handles.handle import Handle
from kq.handles.whereabouts import Looks
from kq.values.job import Job, Settings
from kq.values.outcome import Rules
from kq.values.policy import RetryPolicy
from kq.values.signature import Signature
from kq.values.unique import Key, Unique

P = ParamSpec("P")
R = TypeVar("R")


class Submits(Looks, Protocol):
    """Where jobs go, and where one looks for them: the app."""

    jobs: dict[str, JobType[..., Any]]

    def submit_jobs(self, jobs: Iterable[Job[Any]]) -> list[Handle[Any]]:
        """Store jobs, all or none."""


class JobType(Generic[P, R]):
    """A function that can be called here and now, or submitted to run elsewhere later.

    Made by `@app.job`. Calling it calls the function.
    """

    def __init__(
        self,
        app: Submits,
        name: str,
        function: Callable[P, Any],
        settings: Settings,
        rules: Rules,
        timeout: float,
        keep: float | None,
        fallback: Sequence[str] = (),
        rehearse: bool = True,
    ) -> None:
        functools.update_wrapper(self, function)
        self.app = app
        self.name = name
        self.function = function
        self.settings = settings
        self.rules = rules
        self.timeout = timeout
        self.keep = keep
        self.fallback = tuple(fallback)
        self.rehearse = rehearse
        self.signature = Signature(name, function)
        self.asynchronous = inspect.iscoroutinefunction(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = self.function(*args, **kwargs)
        return result

    def __repr__(self) -> str:
        return f"<job type {self.name}>"

    def job(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """A job with these arguments, not yet submitted. Raises TypeError when they do not fit, a fallback neither."""
        self.check(args, kwargs)
        return Job(new_id(), self.name, args, kwargs, self.settings)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise TypeError unless these arguments will fit where they run, and each fallback that the app knows."""
        self.signature.check(args, kwargs)
        for name in self.fallback:
            if name in self.app.jobs:
                try:
                    self.app.jobs[name].signature.check(args, kwargs)
                except TypeError as error:
                    raise TypeError(f"{error} (it runs instead of {self.name} when that gives up)") from None

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Submit a job with these arguments; it is stored when this returns (promise C1).

        Raises TypeError when the arguments do not fit, BrokerUnreachable (its .stored says what is known)
        or BrokerFull when it could not be stored within submit_timeout.
        """
        return self.app.submit_jobs([self.job(*args, **kwargs)])[0]

    async def submit_async(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """submit(), without blocking the event loop."""
        job = self.job(*args, **kwargs)
        return (await aside(self.app.submit_jobs, [job]))[0]

    def handle(self, id: str) -> Handle[R]:
        """The handle of a job of this type that was submitted elsewhere, or before, by its id.

        Nothing is asked for: of an id that nobody knows, or whose result is not kept any more, result() waits in vain.
        For a job that was submitted to another queue: options(queue=…).handle(id).
        """
        return Handle(id, self.settings.queue or "", self.app)

    def options(
        self,
        *,
        queue: str | None = None,
        priority: int | None = None,
        delay: float | None = None,
        at: float | None = None,
        timeout: float | None = None,
        deadline: float | None = None,
        unique: Key | Unique | None = None,
        retry_policy: RetryPolicy | None = None,
    ) -> JobType[P, R]:
        """This job type with other settings (see kq.values.job.Settings), for one submit or many."""
        said = {
            "queue": queue,
            "priority": priority,
            "delay": delay,
            "at": at,
            "timeout": timeout,
            "deadline": deadline,
            "unique": unique,
            "retry_policy": retry_policy,
        }
        other = self.__class__.__new__(self.__class__)  # not copy(), which takes as long as the rest
        other.__dict__ = {**self.__dict__, "settings": self.settings.but(said)}
        return other


class AsyncJobType(JobType[P, R]):
    """A job type whose function is a coroutine function: calling it gives a coroutine."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # type: ignore[override]
        coroutine: Coroutine[Any, Any, R] = self.function(*args, **kwargs)
        return coroutine
