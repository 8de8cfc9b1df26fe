"""Text on a terminal that is not as wide as it is long."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest

from kq.plain import folded, middle_cut, printable, printable_json, visible

#: Characters of the category Cf that have a shape: signs that stand before or over digits, and Egyptian quadrats.
SHAPED = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD, *range(0x13430, 0x13440)}
#: Default_Ignorable_Code_Point of Unicode 16, DerivedCoreProperties.txt.
IGNORABLE = {
    *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFEFF, 0xFFA0),
    *(*range(0x180B, 0x1810), *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070)),
    *(*range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B)),
    *range(0xE0000, 0xE1000),
}
HIDDEN = IGNORABLE | {
    code
    for code in range(sys.maxunicode + 1)
    if unicodedata.category(chr(code)) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and code not in SHAPED
}


def test_no_character_that_cant_be_seen_is_shown() -> None:
    for code in HIDDEN:
        name = f"a{chr(code)}b"
        assert printable(name).isascii(), hex(code)
        assert not visible(name), hex(code)
        shown = printable_json(json.dumps(name, ensure_ascii=False))
        assert shown.isascii(), hex(code)
        assert json.loads(shown) == name
    assert len({printable(f"a{chr(code)}b") for code in HIDDEN}) == len(HIDDEN)


def test_every_other_character_is_left_alone() -> None:
    text = "".join(chr(code) for code in range(sys.maxunicode + 1) if code not in HIDDEN)
    assert printable(text) == printable_json(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\u26a0\ufe0f low \u2764\ufe0f \U0001f44d\U0001f3fd", "\u26a0\ufe0f low \u2764\ufe0f \U0001f44d\U0001f3fd"),
        ("mail\ufe0f", "mail\\ufe0f"),
        ("\U0001f469\u200d\U0001f4bb", "\U0001f469\\u200d\U0001f4bb"),
        ("\u2764\ufe0f\ufe0f", "\u2764\ufe0f\\ufe0f"),
    ],
)
def test_of_emoji_only_the_coloured_form_is_kept(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert not visible(text) or text == shown


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
