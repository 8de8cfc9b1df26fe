"""`kq.Secret`: an argument that kq shows nowhere."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from kq.secret_names import HIDDEN

T = TypeVar("T")

#: The only name in the JSON object that a Secret is in a message.
MARK = "kq.secret"


class Secret(msgspec.Struct, Generic[T], frozen=True, forbid_unknown_fields=True, rename={"value": MARK}):
    """A value that kq shows nowhere: the type of a parameter, `def charge(card: kq.Secret[str])`.

    The caller submits `kq.Secret("4111…")`, and the job reads `card.value`. Its text and repr() are `***`; the command
    line, the page, logs and events show `***` too. In the message it is `{"kq.secret": "4111…"}`, not encrypted: a
    program that can read the broker can read it.
    """

    value: T

    def __repr__(self) -> str:
        return f"Secret({HIDDEN!r})"

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return format(HIDDEN, spec)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("value", HIDDEN)]


def without_marked(value: Any) -> Any:
    """value, which JSON can carry, with *** in the place of what a Secret holds."""
    match value:
        case dict():
            return {key: HIDDEN if key == MARK else without_marked(each) for key, each in value.items()}
        case list() | tuple():
            return [without_marked(each) for each in value]
        case _:
            return value
