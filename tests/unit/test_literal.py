"""What people write as JSON: what Python's reader takes for it and nothing else does is refused."""

from __future__ import annotations

from typing import Any

import click
import pytest

from kq.cli.literal import literal, parsed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (r'"\ud800"', "not Unicode"),
        ("NaN", "NaN or infinity"),
        ('{"a": [-Infinity]}', "NaN or infinity"),
        ("1e999", "NaN or infinity"),
        ("[" * 100 + "]" * 100, "levels deep"),
        ("[" * 100_000, "nested too deep"),
        ("cat", "is no JSON"),
    ],
)
def test_what_no_job_returns_is_no_result(text: str, why: str) -> None:
    with pytest.raises(click.BadParameter, match=why) as told:
        parsed(text, "--result")
    assert len(told.value.message.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("[1, 2]", [1, 2]), ("cat", "cat"), ("NaN", "NaN"), ("-Infinity", "-Infinity"), ("[1", "[1")],
)
def test_what_is_no_json_is_text(text: str, value: Any) -> None:
    assert literal(text, "ARGS") == value


def test_what_is_too_deep_to_be_read_is_refused() -> None:
    with pytest.raises(click.BadParameter, match="nested too deep"):
        literal("[" * 100_000, "ARGS")
