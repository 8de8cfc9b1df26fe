"""Job types that are side effects: what they do is done once for each key (promise C13)."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import msgspec

from kq.aside import aside
from kq.effects.context import current_job
from kq.effects.ledger import KEEP
from kq.effects.once import Once, OnDoubt, check_terms


class Effect(msgspec.Struct, frozen=True):
    """What is said of an effect once and for all (see App.effect)."""

    name: str
    key: Callable[..., str] | None = None
    on_doubt: OnDoubt = "bury"
    check: Callable[..., bool | None] | None = None
    keep: float = KEEP

    def __post_init__(self) -> None:
        check_terms(self.on_doubt, self.keep)
        said: dict[str, object] = {"key": self.key, "check": self.check}
        for name, value in said.items():
            if not (value is None or callable(value)):
                use = "a function of the job's arguments, or leave it out"
                raise TypeError(f"effect {self.name}: {name} {value!r} is no function; use {use}")

    def of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """function, done once for each key when it runs in a worker. Called elsewhere it is what it was."""
        key = self.key or _digest_of(function)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                effect = self._begin(key, args, kwargs)
                if effect is None:
                    return await function(*args, **kwargs)
                async with effect:
                    if effect.due:
                        outcome = await function(*args, **kwargs)
                        await aside(effect.done, outcome)
                return effect.outcome

            return run_async

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            effect = self._begin(key, args, kwargs)
            if effect is None:
                return function(*args, **kwargs)
            with effect:
                if effect.due:
                    effect.done(function(*args, **kwargs))
            return effect.outcome

        return run

    def _begin(self, key: Callable[..., str], args: Any, kwargs: dict[str, Any]) -> Once | None:
        job = current_job()
        if job is None:
            return None
        check = None if self.check is None else functools.partial(self.check, *args, **kwargs)
        name = f"{self.name}:{key(*args, **kwargs)}"
        once = job.once(name, on_doubt=self.on_doubt, check=check, keep=self.keep)
        once.mine = msgspec.structs.replace(once.mine, whole=True)
        return once


def _digest_of(function: Callable[..., Any]) -> Callable[..., str]:
    """The key of an effect that names none: the same for the same arguments, however they are passed."""
    signature = inspect.signature(function)

    def digest(*args: Any, **kwargs: Any) -> str:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return hashlib.sha256(_encode(bound.arguments)).hexdigest()[:32]

    return digest


_encode = msgspec.json.Encoder(order="sorted").encode
