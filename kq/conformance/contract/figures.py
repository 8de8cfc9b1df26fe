"""What a run measured: which promise a test speaks of, which fault it brings about, and its figures.

They travel as pytest's user properties, so that a run over several processes gathers them too; `page` and `faults`
make pages of the docs of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., Any])

PROMISE, FAULT, FIGURE, BROKER, ACCOUNT = "kq promise", "kq fault", "kq figure", "kq broker", "kq account"


def keeps(promise: str) -> Callable[[Test], Test]:
    """Say which promise of the contract a test speaks of: `@keeps("C3")`."""

    def mark(test: Test) -> Test:
        test.kq_promise = promise  # type: ignore[attr-defined]
        return test

    return mark


def survives(fault: str) -> Callable[[Test], Test]:
    """Say which fault a test brings about: `@survives("F3")`. Their names are in `faults`."""

    def mark(test: Test) -> Test:
        test.kq_fault = fault  # type: ignore[attr-defined]
        return test

    return mark


class Figures:
    """Takes down what a test measured. Calling it adds a figure: `measured("p99 12 ms over 200 jobs")`."""

    def __init__(self, node: pytest.Item, broker: str) -> None:
        self._properties = node.user_properties
        function = getattr(node, "function", None)
        self._properties += [
            (PROMISE, getattr(function, "kq_promise", "")),
            (FAULT, getattr(function, "kq_fault", "")),
            (BROKER, broker),
        ]

    def __call__(self, figure: str) -> None:
        self._properties.append((FIGURE, figure))

    def account(self, *, twice: int = 0, back: float | None = None) -> None:
        """Add to the table of faults: how many jobs ran to their end twice; seconds until work went on.

        None was lost: a test that loses one fails.
        """
        self._properties.append((ACCOUNT, (twice, back)))


def percentile(values: Iterable[float], share: float) -> float:
    """The value that a share (0..1) of values does not exceed."""
    ordered: Sequence[float] = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def ms(seconds: float) -> str:
    """Seconds as people read short times."""
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"
