"""Conditions that a script sets on the command line; see kq.values.condition."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from kq.cli.frame import warn
from kq.cli.near import did_you_mean
from kq.values.condition import Condition, parse_condition
from kq.values.snapshot import Snapshot


class ConditionType(click.ParamType["Condition"]):
    """`oldest>60s`."""

    name = "condition"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Condition:
        if isinstance(value, Condition):
            return value
        try:
            return parse_condition(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def doubt(conditions: Iterable[Condition], shot: Snapshot) -> None:
    """Say on stderr about which queue a condition is that is not there: it may be misspelt."""
    known = [] if shot.broker else [row.name for row in shot.queues]
    for condition in conditions:
        if known and condition.queue and condition.queue not in known:
            warn(f"{condition.text}: there is no queue {condition.queue!r} yet", did_you_mean(condition.queue, known))


#: The option of verbs that look: exit code 1 when a condition is met.
FAIL_IF = click.option(
    "--fail-if",
    "conditions",
    type=ConditionType(),
    multiple=True,
    metavar="CONDITION",
    help="Exit with 1 if this is so: 'oldest>60s', 'mail:ready>1000', 'unserved>0'. May be repeated.",
)
