"""The parts of the web page that are pure: charts, fields, what stays hidden."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest

from kq.errors import BadArguments
from kq.values.redaction import redacted, restored
from kq.values.snapshot import Point
from kq.web import notices
from kq.web.acts import ACTS
from kq.web.charts import Axis, Line, axis, chart, spark
from kq.web.drawing import value
from kq.web.fields import Field, from_form, from_json


def test_a_chart_has_its_points_where_they_belong_and_gaps_where_nobody_knows() -> None:
    points = [Point(at=at) for at in (410.0, 700.0, 980.0, 991.0, 1000.0)]
    at = axis(points, 1000.0, 10.0)
    assert at.places == [pytest.approx(0.017, abs=0.001), 0.5, pytest.approx(0.967, abs=0.001), 0.985, 1.0]
    lines = [Line("a", "in", [None, 1.0, 2.0, 3.0, 4.0])]
    text = str(chart("<Jobs>", at, lines, lambda value: f"{value:g}"))
    assert 'd="M154.7 76.8h5.3 M304.0 57.6h5.3 L315.2 38.4 L320.0 19.2"' in text
    assert "<span>10 min ago</span>" in text
    assert "&lt;Jobs&gt;: a 4" in text
    assert "<span>5</span>" in text
    assert "style" not in text
    one = axis([Point(at=0.0)], 0.0, 10.0)
    assert "nothing is known yet" in chart("x", one, [Line("a", "in", [None])], str)
    assert "nothing is known yet" in chart("x", Axis(120.0, [], 0.1), [Line("a", "in", [])], str)
    assert spark(one, [1.0], "x") == ""
    assert "<path" in spark(Axis(120.0, [0.9, 1.0], 0.1), [0.0, 0.0], "x")


def test_a_chart_spells_out_what_cant_be_seen() -> None:
    at, evil = Axis(120.0, [0.9, 1.0], 0.1), "jobs in \x1b\u202e\u200b"
    spelt = r"jobs in \x1b\u202e\u200b"
    assert f'aria-label="{spelt}"' in spark(at, [1.0, 2.0], evil)
    drawn = chart(evil, at, [Line(evil, "in", [1.0, 2.0])], str)
    assert f'aria-label="{spelt}: {spelt} 2.0"' in drawn
    assert drawn.count(spelt) == 4


@pytest.mark.parametrize("text", ["a\u200bb\u202e\u061c\u00ad\U000e0041", "a\tb\nc\r\u2028", "<\"'&>\ufe0f"])
def test_a_field_of_a_form_gives_back_what_it_was_given(text: str) -> None:
    written = str(value(text))
    assert not set(text) & set("\u200b\u202e\u061c\u00ad\U000e0041\t\n\r\u2028\ufe0f<\"'>") & set(written)
    (read,) = _Values(f'<input value="{written}">').found
    assert read == text
    assert value("\x9b\0\x1b\ud800") == r"\x9b\x00\x1b\ud800"


class _Values(HTMLParser):
    """The values of all fields of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str | None] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [text for name, text in attrs if name == "value"]


@pytest.mark.parametrize(
    ("seconds", "minutes", "begins"),
    [(0, "2 min", 0.917), (60, "2 min", 0.417), (110, "2 min", 0.0), (120, "3 min", 0.278), (300, "10 min", 0.483)],
)
def test_a_young_history_fills_its_chart_and_the_chart_says_of_how_long_it_is(
    seconds: int, minutes: str, begins: float
) -> None:
    points = [Point(at=1000.0 - before) for before in range(seconds, -1, -10)]
    at = axis(points, 1000.0, 10.0)
    assert at.minutes == minutes
    assert at.places[0] - at.step == pytest.approx(begins, abs=0.001)
    assert axis(points[-1:], 1000.0, 10.0, at).minutes == minutes


FIELDS = (
    Field("text", "text", "", "usual"),
    Field("flag", "flag", "", False),
    Field("number", "number", "", least=1, most=9),
    Field("span", "duration", ""),
    Field("value", "json", ""),
    Field("names", "texts", ""),
    Field("choice", "text", "", choices=("a", "b")),
)


def test_a_form_and_json_say_the_same() -> None:
    form = {"flag": ["on"], "number": ["3"], "span": ["5m"], "value": ['{"a": 1}'], "names": ["x", "y z"], "text": [""]}
    object = {"flag": True, "number": 3, "span": 300, "value": {"a": 1}, "names": ["x", "y", "z"], "choice": None}
    assert from_form(FIELDS, form) == from_json(FIELDS, object)
    assert from_json(FIELDS, {}) == {
        "text": "usual",
        "flag": False,
        **dict.fromkeys(["number", "span", "value", "names", "choice"]),
    }


@pytest.mark.parametrize(
    "said",
    [
        {"number": 0},
        {"number": 10},
        {"number": True},
        {"number": "3"},
        {"number": 2.5},
        {"flag": "yes"},
        {"span": "soon"},
        {"span": -1},
        {"span": []},
        {"span": True},
        {"names": "x"},
        {"names": [1]},
        {"choice": "c"},
        {"text": 5},
        {"other": 1},
        [],
        None,
    ],
)
def test_what_does_not_fit_a_field_is_refused(said: Any) -> None:
    with pytest.raises(BadArguments):
        from_json(FIELDS, said)


@pytest.mark.parametrize(
    ("edited", "whole"),
    [
        ({"a": 2, "password": "***"}, {"a": 2, "password": "hunter2"}),
        ({"password": "new"}, {"password": "new"}),
        (
            {"password": "***", "list": [1, {"token": "***", "b": 3}]},
            {"password": "hunter2", "list": [1, {"token": ["x"], "b": 3}]},
        ),
        ({"list": [1, {"token": "***", "b": 2}, {"c": 3}]}, {"list": [1, {"token": ["x"], "b": 2}, {"c": 3}]}),
        ({"text": "password=***"}, {"text": "password=abc"}),
        ({}, {}),
        ({"a": True}, {"a": True}),
    ],
)
def test_what_was_hidden_is_put_back_where_it_was_left(edited: Any, whole: Any) -> None:
    original = {"a": 1, "password": "hunter2", "list": [1, {"token": ["x"], "b": 2}], "text": "password=abc"}
    assert restored(edited, redacted(original, longest=None), original) == whole


@pytest.mark.parametrize(
    "edited", [{"b": "***"}, {"text": "password=*** "}, {"list": [{"token": "***"}, 1]}, {"n": {"x": ["***"]}}]
)
def test_what_was_hidden_and_is_moved_is_refused(edited: Any) -> None:
    original = {"password": "hunter2", "list": [1, {"token": ["x"], "b": 2}], "text": "password=abc"}
    with pytest.raises(ValueError, match="stands where it did not"):
        restored(edited, redacted(original, longest=None), original)


def test_more_names_may_be_hidden_and_long_texts_are_whole_where_they_are_edited() -> None:
    shown = redacted({"Email": "a@b.c", "home_phone": 1, "x": "y" * 300}, "", ("email", "*phone*"), None)
    assert shown == {"Email": "***", "home_phone": "***", "x": "y" * 300}


def test_a_notice_fits_into_a_cookie_and_is_read_again() -> None:
    act = next(act for act in ACTS if act.path == "/jobs/kick")
    refused = [{"id": f"{number:024}", "reason": "\x1b\U0001f600" * 1000} for number in range(10)]
    told = notices.of(act, {"kicked": ["a", "b"], "refused": refused})
    cookie = notices.written(told)
    assert len(cookie) < 4096 - 200
    assert cookie.isascii()
    shown = notices.read(cookie)
    assert shown["text"] == "kicked 2 jobs"
    assert shown["wrong"].startswith("not 000000000000000000000000: \\x1b\U0001f600")
    for forged in ("", "[]", "%00", "é", notices.written({"text": "x"})[:-3], "W10="):
        assert notices.read(forged) == {}
