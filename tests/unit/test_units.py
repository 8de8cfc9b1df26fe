"""Durations and sizes as people write and read them."""

from __future__ import annotations

import pytest

from kq.units import format_duration, format_instant, format_local, format_size, format_time, parse_duration, parse_size


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (30, 30.0),
        (0.25, 0.25),
        ("30", 30.0),
        ("250ms", 0.25),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("1.5h", 5400.0),
        ("2d", 172800.0),
        ("1w", 604800.0),
        ("100µs", 1e-4),
        ("0", 0.0),
    ],
)
def test_a_duration_is_read_in_seconds(written: str | float, seconds: float) -> None:
    assert parse_duration(written) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "written",
    ["", "5x", "m5", "-3", -3, "1h30", "nan", "inf", float("nan"), True, "5 m!", 10**5000, "9" * 5000, f"{'9' * 400}h"],
    ids=range(14),
)
def test_what_is_no_duration_is_refused_with_an_example(written: str | float) -> None:
    with pytest.raises(ValueError, match=r'is no duration; write 30 .*"5m"'):
        parse_duration(written)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (4096, 4096),
        ("4096", 4096),
        ("1KiB", 1024),
        ("1k", None),
        ("1KB", 1000),
        ("128MiB", 128 * 2**20),
        ("1.5G", 1.5 * 2**30),
    ],
)
def test_a_size_is_read_in_bytes(written: str | int, size: float | None) -> None:
    if size is None:
        with pytest.raises(ValueError, match="is no size"):
            parse_size(written)
    else:
        assert parse_size(written) == size


@pytest.mark.parametrize("written", ["", "MiB", "-1", -1, "1 parsec", True, "9" * 5000], ids=range(7))
def test_what_is_no_size_is_refused_with_an_example(written: str | int) -> None:
    with pytest.raises(ValueError, match=r'is no size; write 4096 .*"128MiB"'):
        parse_size(written)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.00026, "260µs"),
        (0.0411, "41ms"),
        (0.9999, "1.0s"),
        (4.2, "4.2s"),
        (41, "41s"),
        (59.6, "1m00s"),
        (372, "6m12s"),
        (7500, "2h05m"),
        (273600, "3d04h"),
        (-90, "-1m30s"),
    ],
)
def test_a_duration_is_shown_in_at_most_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(512, "512 B"), (1536, "1.5 KiB"), (128 * 2**20, "128 MiB"), (3 * 2**40, "3.0 TiB")]
)
def test_a_size_is_shown_in_one_unit(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("instant", "everywhere", "here", "time"),
    [
        (0.0, "1970-01-01 00:00:00 UTC", "1970-01-01 02:00:00 +0200", "02:00:00 +0200"),
        (1764072070.9, "2025-11-25 12:01:10 UTC", "2025-11-25 14:01:10 +0200", "14:01:10 +0200"),
        *((strange, *[f"{strange:g} s since 1970"] * 3) for strange in (9e15, -1e300, float("nan"))),
    ],
)
@pytest.mark.usefixtures("two_hours_ahead")
def test_an_instant_is_shown_in_utc_or_with_its_offset_also_where_the_calendar_has_none(
    instant: float, everywhere: str, here: str, time: str
) -> None:
    assert (format_instant(instant), format_local(instant), format_time(instant)) == (everywhere, here, time)
