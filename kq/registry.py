"""The job types of an app: what is said of each, and what none of them may say that others deny."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ParamSpec, TypedDict, TypeVar, overload

from msgspec.structs import replace

from kq.effects.effect import Effect
from kq.errors import ConfigError
from kq.jobtype import AsyncJobType, JobType, Submits
from kq.values.failure import Failures, classified
from kq.values.job import FALLBACKS, Job, Settings, check_name
from kq.values.outcome import OnLost, OnTimeout, Rules
from kq.values.policy import RetryPolicy
from kq.values.unique import Key, Unique

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_QUEUE = "default"
#: Seconds that an attempt may take when nobody says.
DEFAULT_TIMEOUT = 1800.0


class JobOptions(TypedDict, total=False):
    """What App.job and App.effect both take; what is not said, or None, is as Registry.add has it."""

    name: str | None
    queue: str | None
    priority: int | None
    timeout: float | None
    unique: Key | Unique | None
    retry_policy: RetryPolicy | None
    singleton: bool
    failures: Failures | None
    on_timeout: OnTimeout | None
    on_lost: OnLost
    max_lost: int | None
    max_infra: int | None
    keep: float | None
    fallback: Sequence[JobType[..., Any] | str]
    rehearse: bool


class Registry:
    """Job types by name. defaults, rules: what is said of those that say nothing themselves."""

    def __init__(self, app: Submits, defaults: Settings, rules: Rules) -> None:
        self._app = app
        self.defaults = defaults
        self.rules = rules
        self.types: dict[str, JobType[..., Any]] = {}
        #: The queues of which one job runs at a time.
        self.singletons: set[str] = set()

    def add(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        timeout: float | None = None,
        unique: Key | Unique | None = None,
        retry_policy: RetryPolicy | None = None,
        singleton: bool = False,
        failures: Failures | None = None,
        on_timeout: OnTimeout | None = None,
        on_lost: OnLost = "retry",
        max_lost: int | None = None,
        max_infra: int | None = None,
        keep: float | None = None,
        fallback: Sequence[JobType[..., Any] | str] = (),
        rehearse: bool = True,
    ) -> JobType[..., Any]:
        """Make a job type of function; see App.job. Raises ConfigError."""
        name = name or _name_of(function)
        check_name("job type", name)
        if singleton and queue is None:
            queue = name
        settings = Settings(queue, priority, timeout=timeout, unique=unique, retry_policy=retry_policy).over(
            self.defaults
        )
        rules = Rules(
            settings.retry_policy,
            {**self.rules.failures, **classified(failures)},
            on_timeout,
            on_lost,
            self.rules.max_lost if max_lost is None else max_lost,
            self.rules.max_infra if max_infra is None else max_infra,
            bool(fallback),
        )
        check_keep(keep)
        if name in self.types:
            raise ConfigError(f"job type {name!r} is defined twice; give one of them a name=")
        self._check_kind(name, settings.queue or DEFAULT_QUEUE, singleton)
        # The policy stays with the type, so that a change of code reaches jobs that already wait.
        settings = replace(settings, retry_policy=None, timeout=None)
        kind = AsyncJobType if inspect.iscoroutinefunction(function) else JobType
        limit = timeout or self.defaults.timeout or DEFAULT_TIMEOUT
        self.types[name] = kind(
            self._app, name, function, settings, rules, limit, keep, _names_of(fallback, name), rehearse
        )
        if singleton:
            self.singletons.add(settings.queue or "")
        return self.types[name]

    def _check_kind(self, name: str, queue: str, singleton: bool) -> None:
        """Raise ConfigError when a new job type says of its queue what others deny."""
        if singleton and queue == self.defaults.queue:
            raise ConfigError(
                f"job type {name!r} can't make a singleton queue of {queue!r}, the app's default; name another queue=, "
                "or none to have one of its own"
            )
        others = [other.name for other in self.types.values() if other.settings.queue == queue]
        if others and singleton != (queue in self.singletons):
            says, say = ("singleton=True", "nothing of the kind") if singleton else ("no singleton=True", "so")
            raise ConfigError(
                f"job type {name!r} says {says} of queue {queue!r}, where {others[0]!r} says {say}; "
                "let all say it, or name another queue="
            )

    def queue_of(self, job: Job[Any]) -> str:
        """Where job goes. Raises ConfigError for one of a singleton type elsewhere than in a singleton queue."""
        queue = job.settings.queue or self.defaults.queue or DEFAULT_QUEUE
        known = self.types.get(job.type)
        if known is not None and known.settings.queue in self.singletons and queue not in self.singletons:
            raise ConfigError(
                f"a job of {job.type!r}, a singleton, can't go to queue {queue!r}, where many run at a time; "
                f"its queue is {known.settings.queue!r}"
            )
        return queue


class Decorator:
    """What `@app.job(…)` returns before it meets its function. effect: makes it one, from the job type's name."""

    def __init__(
        self, registry: Registry, options: dict[str, Any], effect: Callable[[str], Effect] | None = None
    ) -> None:
        for name in options:
            if name not in JobOptions.__annotations__:
                near = difflib.get_close_matches(name, JobOptions.__annotations__, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(JobOptions.__annotations__)}"
                raise TypeError(f"a job type has no option {name!r}; {hint}")
        self._registry = registry
        self._options = options
        self._effect = effect

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncJobType[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> JobType[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        if self._effect is not None:
            function = self._effect(self._options.get("name") or _name_of(function)).of(function)
        return self._registry.add(function, **self._options)


def check_keep(keep: float | None) -> None:
    """Raise ConfigError for a time that results can't be kept."""
    if keep is not None and not isinstance(keep, int | float):
        raise TypeError(f"keep {keep!r} is no number; use seconds")
    if keep is not None and keep < 0:
        raise ConfigError(f"keep {keep} s is less than nothing; use seconds, or 0 to keep no results")


def _name_of(function: Callable[..., Any]) -> str:
    return f"{_module_name(function)}.{function.__qualname__}"


def _names_of(fallback: Sequence[JobType[..., Any] | str], first: str) -> list[str]:
    """The names of the job types that run instead of first."""
    if isinstance(fallback, str | JobType):
        raise ConfigError(f"{first}: fallback is a list of job types; write fallback=[…]")
    names = [each.name if isinstance(each, JobType) else each for each in fallback]
    if first in names:
        raise ConfigError(f"{first} can't run instead of itself; take it out of its fallback=")
    if len(names) > FALLBACKS:
        raise ConfigError(f"{first} has {len(names)} fallbacks, more than {FALLBACKS}; leave some out")
    return names


def _module_name(function: Callable[..., Any]) -> str:
    """The function's module; for a script, its file's name, which is what a worker imports it as."""
    if function.__module__ != "__main__":
        return function.__module__
    file = getattr(sys.modules["__main__"], "__file__", None)
    return file.rsplit("/", 1)[-1].removesuffix(".py") if file else "__main__"
