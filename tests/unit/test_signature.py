"""Arguments, bound and checked in the caller's line (and again where they run), with messages that name them."""

from __future__ import annotations

import datetime
import enum
import gc
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

import msgspec
import pytest
from hypothesis import given

from kq.values.message import decode_body, encode_body
from kq.values.signature import Signature
from tests.unit.strategies import JSON

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]  # as in programs that avoid a cycle


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"


@dataclass
class Point:
    x: int
    y: int = 0

    def __post_init__(self) -> None:
        if self.x > 1000:
            raise ValueError("x is off the map")


class Box(msgspec.Struct):
    corner: Point
    colour: Colour = Colour.RED


class Options(TypedDict, total=False):
    deep: bool


def resize(path: str, *, width: int = 800) -> None: ...
def move(x: int, y: int, /, speed: float = 1.0) -> None: ...
def pack(target: str, *paths: str, level: int = 6, **labels: int) -> None: ...
def draw(point: Point, colour: Colour = Colour.RED, box: Box | None = None) -> None: ...
def limited(size: Annotated[int, msgspec.Meta(gt=0, le=10)], mode: Literal["fast", "good"] = "fast") -> None: ...
def wide(value: Any, bare, unknown: Unknown, lock: threading.Lock, number: int = 1) -> None: ...  # type: ignore[no-untyped-def]


def check(function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    Signature("shop.job", function).check(args, kwargs)


def arriving(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    """What function is called with, after the way through a message."""
    positional, named = Signature("shop.job", function).convert(*decode_body(encode_body(args, kwargs)))
    return list(positional), named


def complaint(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """What check() says against these arguments: one line that begins with the job type."""
    with pytest.raises(TypeError) as caught:
        check(function, *args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    assert text.startswith("shop.job: ")
    return text.removeprefix("shop.job: ")


# Binding.


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [(("cat.png",), {}), ((), {"path": "cat.png"}), (("cat.png",), {"width": 200}), ((), {"width": 2, "path": "x"})],
)
def test_arguments_that_fit_are_accepted(args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    check(resize, *args, **kwargs)


def test_a_wrong_name_is_answered_with_the_nearest_one() -> None:
    assert complaint(resize, "x", widht=3) == "got an unexpected keyword argument 'widht'; did you mean 'width'?"


def test_a_name_like_no_other_is_answered_with_what_there_is() -> None:
    assert complaint(resize, "x", colour=3) == (
        "got an unexpected keyword argument 'colour'; it takes (path, *, width=800)"
    )


def test_missing_arguments_are_named() -> None:
    assert complaint(resize) == "missing argument 'path'; it takes (path, *, width=800)"
    assert complaint(resize, width=3) == "missing argument 'path'; it takes (path, *, width=800)"
    assert complaint(move) == "missing arguments 'x', 'y'; it takes (x, y, /, speed=1.0)"
    assert complaint(pack) == "missing argument 'target'; it takes (target, *paths, level=6, **labels)"


def test_too_many_arguments_are_refused() -> None:
    assert complaint(resize, "x", 3) == "too many positional arguments; it takes (path, *, width=800)"


def test_an_argument_given_twice_is_named() -> None:
    assert "multiple values for argument 'path'" in complaint(resize, "x", path="y")


def test_a_positional_only_argument_can_not_be_named() -> None:
    check(move, 1, 2)
    assert "'x" in complaint(move, x=1, y=2)  # Python 3.13 names all of them: 'x, y'


def test_a_function_without_parameters_takes_no_arguments() -> None:
    check(lambda: None)
    assert "too many positional arguments; it takes ()" in complaint(lambda: None, 1)


# Calling.


def test_what_arrives_calls_the_function_as_it_was_called() -> None:
    assert arriving(resize, "x") == ([], {"path": "x"})
    assert arriving(resize, "x", width=3) == ([], {"path": "x", "width": 3})
    assert arriving(move, 1, 2) == ([1, 2], {})
    assert arriving(move, 1, 2, speed=3) == ([1, 2, 3.0], {})
    assert arriving(pack, "t") == (["t"], {})
    assert arriving(pack, "t", "a", "b", level=1, red=1) == (["t", "a", "b"], {"level": 1, "red": 1})
    assert arriving(pack, red=1, target="t") == (["t"], {"red": 1})


def test_a_keyword_may_have_the_name_of_a_positional_only_parameter() -> None:
    def tag(name: str, /, **labels: str) -> None: ...

    assert arriving(tag, "a", name="b") == (["a"], {"name": "b"})


def test_the_function_fills_in_its_own_defaults() -> None:
    """So a default that changes with the code reaches the jobs that wait."""
    assert arriving(resize, "x") == ([], {"path": "x"})


def test_a_default_need_not_fit_its_annotation() -> None:
    def job(size: int = "auto") -> None: ...  # type: ignore[assignment]

    check(job)
    assert arriving(job) == ([], {})
    assert complaint(job, size="auto") == "argument 'size': Expected `int`, got `str`"


@given(JSON, JSON)
def test_without_annotations_any_json_arrives_as_it_was_sent(one: Any, other: Any) -> None:
    def job(first, *rest, **named): ...  # type: ignore[no-untyped-def]

    check(job, one, other, key=other)
    assert arriving(job, one, other, key=other) == ([one, other], {"key": other})


# Types.


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "reason"),
    [
        (resize, (3,), {}, "argument 'path': Expected `str`, got `int`"),
        (resize, ("x",), {"width": "3"}, "argument 'width': Expected `int`, got `str`"),
        (resize, ("x",), {"width": True}, "argument 'width': Expected `int`, got `bool`"),
        (resize, ("x",), {"width": 2.5}, "argument 'width': Expected `int`, got `float`"),
        (move, (1, "2"), {}, "argument 'y': Expected `int`, got `str`"),
        (pack, ("t", "a", 3), {}, "argument 'paths[1]': Expected `str`, got `int`"),
        (pack, ("t",), {"red": "x"}, "argument 'labels[...]': Expected `int`, got `str`"),
        (draw, ({"y": 1},), {}, "argument 'point': Object missing required field `x`"),
        (draw, ({"x": 1001},), {}, "argument 'point': x is off the map"),
        (draw, (Point(1), "green"), {}, "argument 'colour': Invalid enum value 'green'"),
        (draw, (Point(1),), {"box": {"corner": {"x": "1"}}}, "argument 'box.corner.x': Expected `int`, got `str`"),
        (limited, (0,), {}, "argument 'size': Expected `int` >= 1"),
        (limited, (11,), {}, "argument 'size': Expected `int` <= 10"),
        (limited, (5, "best"), {}, "argument 'mode': Invalid enum value 'best'"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(
    function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], reason: str
) -> None:
    assert complaint(function, *args, **kwargs) == reason


def test_a_whole_number_is_a_float_too() -> None:
    check(move, 1, 2, speed=3)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (datetime.datetime, datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)),
        (datetime.date, datetime.date(2026, 1, 2)),
        (datetime.timedelta, datetime.timedelta(seconds=90)),
        (uuid.UUID, uuid.uuid4()),
        (Decimal, Decimal("1.10")),
        (bytes, b"\x00\xff"),
        (set[int], {1, 2}),
        (tuple[int, str], (1, "x")),
        (dict[int, str], {1: "x"}),
        (list[Point], [Point(1, 2)]),
        (Colour, Colour.BLUE),
        (Point, Point(1, 2)),
        (Box, Box(Point(1), Colour.BLUE)),
        (Options, {"deep": True}),
        (Point | None, None),
    ],
)
def test_a_value_arrives_as_its_annotation_says(annotation: Any, value: Any) -> None:
    def job(value): ...  # type: ignore[no-untyped-def]

    job.__annotations__ = {"value": annotation}
    check(job, value)
    assert arriving(job, value) == ([], {"value": value})


def test_a_key_of_the_wrong_type_is_named_with_its_argument() -> None:
    def job(pages: dict[int, str]) -> None: ...

    assert complaint(job, {"one": "x"}) == "argument 'pages', a key: Expected `int`, got `str`"


@pytest.mark.parametrize("value", ["x", 3, None, [1], {"a": {}}])
def test_what_an_annotation_means_that_nothing_can_check_is_anything(value: Any) -> None:
    check(wide, value, value, value, value)
    assert arriving(wide, value, value, value, value)[1]["lock"] == value


def test_an_annotation_that_can_not_be_checked_leaves_the_others_checked() -> None:
    assert complaint(wide, 1, 2, 3, 4, number="x") == "argument 'number': Expected `int`, got `str`"


@pytest.mark.parametrize("annotation", [Mixed, bytes | str, Point | dict, list[Path], Callable[[], None], "Nowhere"])
def test_a_type_that_can_not_be_told_from_json_takes_anything(annotation: Any) -> None:
    def job(value): ...  # type: ignore[no-untyped-def]

    job.__annotations__ = {"value": annotation}
    check(job, "x")
    assert arriving(job, "x") == ([], {"value": "x"})


# What JSON cannot carry.


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (object(), "argument 'bare' has no JSON form: Encoding objects of type object is unsupported"),
        (Path("x"), "argument 'bare' has no JSON form: Encoding objects of type PosixPath is unsupported"),
        ({"rate": [float("nan")]}, "argument 'bare' holds NaN or infinity, which JSON does not have"),
        (Point(1, float("-inf")), "argument 'bare' holds NaN or infinity, which JSON does not have"),  # type: ignore[arg-type]
        (b"\xff".decode(errors="surrogateescape"), "argument 'bare' holds text that is not Unicode"),
        ({(1, 2): 3}, "argument 'bare' has no JSON form: Only dicts with str-like or number-like keys"),
    ],
)
def test_a_value_that_json_can_not_carry_is_named(value: Any, reason: str) -> None:
    assert complaint(wide, 1, value, 3, 4).startswith(reason)


def test_a_value_that_contains_itself_is_named() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert complaint(wide, loop, 2, 3, 4) == "argument 'value' is nested too deep, or contains itself"


def test_a_value_that_is_nested_too_deep_to_arrive_is_named() -> None:
    def nested(levels: int) -> list[Any]:
        return [] if levels == 1 else [nested(levels - 1)]

    check(wide, nested(62), 2, 3, 4)
    assert complaint(wide, nested(63), 2, 3, 4) == "argument 'value' is nested more than 62 levels deep"


def test_a_long_value_does_not_make_a_long_message() -> None:
    assert complaint(limited, 5, "long " * 100_000).startswith("argument 'mode': Invalid enum value 'long long")


Word = Annotated[str, msgspec.Meta(pattern="^[a-z]+$")]


def test_a_pattern_in_a_union_is_not_checked_but_does_no_harm() -> None:
    def take(one: Word | list[Word], other: dict[str, Word | int] | None = None, word: Word | None = None) -> None:
        """Takes them."""

    signature = Signature("take", take)
    gc.collect()  # where the memory was spoiled, this found it
    signature.check(["A"], {"other": {"a": "B"}, "word": "a"})
    with pytest.raises(TypeError, match="word"):
        signature.check(["a"], {"word": "B"})
