"""How large a worker is to be, and which queues it takes, as somebody says it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from kq.errors import BadArguments
from kq.handles.standing import QUEUES, SLOTS, Order
from kq.plain import cut
from kq.values.job import check_queue


@dataclass(frozen=True, slots=True)
class Change:
    """slots: how many jobs at a time, 0 for as many as now. more: queues with limits, 0 for none; less: queues."""

    slots: int = 0
    more: Mapping[str, int] = field(default_factory=dict)
    less: tuple[str, ...] = ()

    def told(self) -> tuple[str, ...]:
        """For the audit."""
        size = [f"concurrency {self.slots}"] if self.slots else []
        more = [f"+{name}:{limit}" if limit else f"+{name}" for name, limit in self.more.items()]
        return (*size, *more, *(f"-{name}" for name in self.less))


def size_of(concurrency: int | None, queues: Iterable[str]) -> Change:
    """What is to be changed. queues: each +NAME, +NAME:LIMIT or -NAME. Raises BadArguments."""
    if concurrency is not None and not 1 <= concurrency <= SLOTS:
        raise BadArguments(f"a worker can't run {concurrency} jobs at a time", fix=f"Say 1 to {SLOTS:,}.")
    more, less = dict[str, int](), list[str]()
    for text in queues:
        sign, (name, colon, limit) = text[:1], text[1:].partition(":")
        if sign not in ("+", "-") or (sign == "-" and colon):
            raise BadArguments(
                f"{cut(text, 100)!r} does not say what to do with a queue", fix="Write +bulk, +bulk:2 or -mail."
            )
        if colon and not (re.fullmatch("[0-9]{1,9}", limit) and 1 <= int(limit) <= SLOTS):
            raise BadArguments(f"{cut(text, 100)!r} has no limit from 1 to {SLOTS:,}", fix="Write +bulk, or +bulk:2.")
        if not name:
            raise BadArguments(f"{text!r} names no queue", fix="Write +bulk, +bulk:2 or -mail.")
        try:
            check_queue(name)
        except ValueError as error:
            raise BadArguments(str(error)) from error
        if sign == "+":
            more[name] = int(limit) if colon else 0
        else:
            less.append(name)
    if len(more) + len(less) > QUEUES:
        raise BadArguments(f"that are {len(more) + len(less):,} queues", fix=f"A worker takes {QUEUES:,} at most.")
    if more.keys() & less:
        raise BadArguments("a queue can't be taken and left", fix="Say one of them.")
    if concurrency is None and not more and not less:
        raise BadArguments("it is not said what to change", fix="Say --concurrency 8, or --queues +bulk,-mail.")
    return Change(concurrency or 0, more, tuple(less))


def merged(stands: Order, change: Change, order: Order) -> Order:
    """order, with change on top of what stands. Raises BadArguments."""
    more = {name: limit for name, limit in stands.more.items() if name not in change.less}
    less = [name for name in stands.less if name not in change.more]
    less = list(dict.fromkeys([*less, *change.less]))
    if len({**more, **change.more}) + len(less) > QUEUES:
        raise BadArguments("the worker would be told of too many queues", fix=f"{QUEUES:,} are the most.")
    return replace(
        order,
        slots=change.slots or stands.slots,
        more={**more, **change.more},
        less=tuple(less),
    )
