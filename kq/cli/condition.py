"""Conditions that a script sets on the command line; see kq.condition."""

from __future__ import annotations

from typing import Any

import click

from kq.condition import Condition, parse_condition


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


#: The option of verbs that look: exit code 1 when a condition is met.
FAIL_IF = click.option(
    "--fail-if",
    "conditions",
    type=ConditionType(),
    multiple=True,
    metavar="CONDITION",
    help="Exit with 1 if this is so: 'oldest>60s', 'mail:ready>1000', 'unserved>0'. May be repeated.",
)
