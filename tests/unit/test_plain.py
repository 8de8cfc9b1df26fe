"""Text on a terminal that is not as wide as it is long."""

from __future__ import annotations

import pytest

from kq.plain import folded, middle_cut


@pytest.mark.parametrize(
    ("name", "width", "told"),
    [
        ("imports-of-the-north", 20, "imports-of-the-north"),
        ("imports-of-the-north", 11, "impor…north"),
        ("imports-of-the-north", 2, "i…"),
        ("imports-of-the-north", 1, "…"),
    ],
)
def test_of_a_long_name_its_beginning_and_its_end_are_told(name: str, width: int, told: str) -> None:
    assert middle_cut(name, width) == told


def test_a_sentence_is_broken_where_words_end_and_its_other_lines_are_indented() -> None:
    lines = folded("queue images is paused by ana, for the disk is being replaced", 30, 2).split("\n")
    assert lines == ["queue images is paused by", "  ana, for the disk is being", "  replaced"]
    assert folded("short", 30, 2) == "short"


@pytest.mark.parametrize(
    "command",
    [
        "kq jobs kick 01a215e30f48 --done",
        "kq queues resume images",
        "kq worker -Q mail",
        "kq jobs ls --queue q --group",
    ],
)
def test_a_command_is_not_broken(command: str) -> None:
    for width in range(30, 80):
        assert command in folded(
            f"nobody knows whether that happened; find out, then {command} or something else", width
        )


def test_what_has_no_place_to_break_stays_whole() -> None:
    assert folded(f"see {'x' * 100} there", 40) == f"see\n{'x' * 100}\nthere"
