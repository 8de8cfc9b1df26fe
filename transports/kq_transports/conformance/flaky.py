"""A broker that fails at the worst moment: a wrapper that breaks one call of a real engine.

Counts calls, so that a test can break the first, the second, the k-th in turn, before or after it had its
effect, and see after each that nothing was lost or doubled. Not for failures of the network, which a proxy makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, ParamSpec, TypeVar

from kq_transports.engine import (
    Arguments,
    Binding,
    Counts,
    Delivery,
    Engine,
    Lease,
    Load,
    Message,
    Rider,
    Seen,
    State,
    Swap,
    Unreachable,
    Verdict,
    Want,
)

Moment = Literal["before", "after"]
P = ParamSpec("P")
R = TypeVar("R")


class Flaky(Engine):
    """An engine whose k-th call of one verb raises Unreachable; all others pass.

    fail_on: the name of a verb, or "" for any. k: 1 for the first call.
    moment: "before" it had any effect, or "after" it had all of it and only the answer was lost.
    calls: how many calls of that verb there were; broken: whether the k-th came.
    """

    def __init__(self, engine: Engine, fail_on: str = "", k: int = 1, moment: Moment = "before") -> None:
        self._engine = engine
        self._fail_on, self._k, self._moment = fail_on, k, moment
        self.traits, self.options = engine.traits, engine.options
        self.calls = 0

    @property
    def broken(self) -> bool:
        """Whether the call that was to fail has failed."""
        return self.calls >= self._k

    @property
    def due(self) -> float | None:  # type: ignore[override]
        return self._engine.due

    def declare(self, queue: str, arguments: Arguments, *, mortal: bool = False) -> None:
        self._call(self._engine.declare, queue, arguments, mortal=mortal)

    def queues(self) -> dict[str, Arguments]:
        return self._call(self._engine.queues)

    def delete(self, queue: str, *, if_empty: bool = False) -> int:
        return self._call(self._engine.delete, queue, if_empty=if_empty)

    def purge(self, queue: str) -> int:
        return self._call(self._engine.purge, queue)

    def declare_exchange(self, exchange: str, kind: str) -> None:
        self._call(self._engine.declare_exchange, exchange, kind)

    def delete_exchange(self, exchange: str) -> None:
        self._call(self._engine.delete_exchange, exchange)

    def bind(self, exchange: str, binding: Binding) -> None:
        self._call(self._engine.bind, exchange, binding)

    def unbind(self, exchange: str, binding: Binding) -> None:
        self._call(self._engine.unbind, exchange, binding)

    def bindings(self, exchange: str) -> tuple[str, Sequence[Binding]]:
        return self._call(self._engine.bindings, exchange)

    def publish(self, messages: Sequence[Message], rider: Rider | None = None) -> None:
        self._call(self._engine.publish, messages, rider)

    def reserve(self, wants: Sequence[Want], verdicts: Sequence[Verdict] = ()) -> list[Delivery]:
        return self._call(self._engine.reserve, wants, verdicts)

    def settle(self, verdicts: Sequence[Verdict], messages: Sequence[Message] = ()) -> list[str]:
        return self._call(self._engine.settle, verdicts, messages)

    def release(self, queues: Iterable[str]) -> None:
        self._call(self._engine.release, queues)

    def beat(self) -> None:
        self._call(self._engine.beat)

    def arm(self, queues: Sequence[str]) -> int:
        return self._call(self._engine.arm, queues)

    def close(self) -> None:
        self._engine.close()

    def count(self, queue: str) -> Counts:
        return self._call(self._engine.count, queue)

    def survey(self) -> dict[str, Load]:
        return self._call(self._engine.survey)

    def browse(self, queue: str, state: State = "ready", limit: int = 100, offset: int = 0) -> list[Seen]:
        return self._call(self._engine.browse, queue, state, limit, offset)

    def find(self, queue: str, ids: Sequence[str]) -> list[Seen]:
        return self._call(self._engine.find, queue, ids)

    def remove(self, queue: str, ids: Sequence[str]) -> list[str]:
        return self._call(self._engine.remove, queue, ids)

    def swap(self, queue: str, swaps: Sequence[Swap]) -> list[bool]:
        return self._call(self._engine.swap, queue, swaps)

    def leases(self) -> list[Lease]:
        return self._call(self._engine.leases)

    def expel(self, connection: str) -> bool:
        return self._call(self._engine.expel, connection)

    def _call(self, verb: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        name: str = verb.__name__
        chosen = self._fail_on in ("", name)
        self.calls += chosen
        failing = chosen and self.calls == self._k
        if failing and self._moment == "before":
            raise Unreachable(f"{name} was not sent, as told", sent=False)
        result = verb(*args, **kwargs)
        if failing:
            raise Unreachable(f"the answer to {name} was lost, as told", sent=True)
        return result
