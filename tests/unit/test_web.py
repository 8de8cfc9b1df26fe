"""The parts of the web page that are pure: charts, fields, what stays hidden."""

from __future__ import annotations

from typing import Any

import pytest

from kq.errors import BadArguments
from kq.redaction import redacted, restored
from kq.snapshot import History, Point
from kq.web.charts import Line, aligned, chart, spark
from kq.web.fields import Field, from_form, from_json


def test_a_chart_has_its_points_where_they_belong_and_gaps_where_nobody_knows() -> None:
    history = History(step=10.0)
    points = [Point(at=700.0, jobs=4), Point(at=990.0, jobs=8), Point(at=1000.0, jobs=2), Point(at=10.0, jobs=9)]
    slots = aligned(history, points, 1003.0)
    assert len(slots) == 60
    assert [number for number, point in enumerate(slots) if point] == [29, 58, 59]
    text = str(chart("<Jobs>", [Line("a", "in", [None, 1.0, 2.0, None, 4.0])], lambda value: f"{value:g}"))
    assert "M80.0 77.2 L160.0 57.6 M320.0 19.2" in text or "M80.0 76.8 L160.0 57.6 M320.0 19.2" in text
    assert "&lt;Jobs&gt;: a 4" in text
    assert "top 5" in text
    assert "style" not in text
    assert "nothing is known yet" in chart("x", [Line("a", "in", [None])], str)
    assert spark([None, 1.0], "x") == ""
    assert "<path" in spark([0.0, 0.0], "x")


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
