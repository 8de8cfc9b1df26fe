"""Durations, sizes and instants as people write and read them.

Inside kq durations are float seconds and sizes are int bytes; other units exist in config, on the
command line and on screens only, and are converted here.
"""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, tzinfo

_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES: dict[str, int] = {
    "": 1,
    "B": 1,
    **{f"{letter}{suffix}": 1024**power for power, letter in enumerate("KMGT", 1) for suffix in ("", "iB")},
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)},
}
#: The largest number of sizes and rates, and characters of what is no number that are repeated.
LARGEST, LONG = 1e15, 100
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zµ]+)\s*")
_RATE = re.compile(r"(\d+(?:\.\d+)?)/([smh])")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)")


def parse_duration(value: str | float) -> float:
    """Seconds in value: 30, "30", "250ms", "5m", "1h30m", "2d". Raises ValueError for anything else."""
    if isinstance(value, bool):
        raise _no_duration(value)
    if isinstance(value, int | float):
        return _checked(value, value)
    text = value.strip()
    try:
        return _checked(float(text), value)
    except ValueError:
        pass
    seconds, end = 0.0, 0
    while part := _PART.match(text, end):
        if part[2] not in _SECONDS:
            raise _no_duration(value)
        seconds += float(part[1]) * _SECONDS[part[2]]
        end = part.end()
    if end == 0 or end != len(text):
        raise _no_duration(value)
    return _checked(seconds, value)


def _checked(seconds: float, value: object) -> float:
    if not 0 <= seconds <= sys.float_info.max:
        raise _no_duration(value)
    return float(seconds)


def _no_duration(value: object) -> ValueError:
    return ValueError(f'{_quoted(value)} is no duration; write 30 (seconds), "250ms", "5m", "1h30m" or "2d"')


def _quoted(value: object) -> str:
    """What somebody wrote, for an error: no more of it than a line holds."""
    if isinstance(value, int):
        return f"a number of {value.bit_length()} bits" if value.bit_length() > LONG else str(value)
    # Not the beginning of a long one: it may be that of a password, by which nobody would know it.
    return repr(value) if not isinstance(value, str) or len(value) <= LONG else f"a text of {len(value):,} characters"


def parse_size(value: str | int) -> int:
    """Bytes in value: 4096, "512KiB", "128MiB", "1.5G". K, M, G and T alone are powers of 1024, KB… of 1000.

    Raises ValueError for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or found[2] not in _BYTES or float(found[1]) > LARGEST:
        raise ValueError(f'{_quoted(value)} is no size; write 4096 (bytes), "512KiB", "128MiB" or "2GiB"')
    return int(float(found[1]) * _BYTES[found[2]])


def parse_rate(text: str) -> float:
    """How many a second `10/s`, `100/m` or `500/h` are. Raises ValueError for what is no rate, or none at all."""
    found = _RATE.fullmatch(text.strip())
    if found is None or not 0 < float(found[1]) <= LARGEST:
        raise ValueError(f"{_quoted(text)} is no rate; write 10/s, 100/m or 500/h")
    return float(found[1]) / {"s": 1, "m": 60, "h": 3600}[found[2]]


def format_instant(instant: float) -> str:
    """An instant for people everywhere: 2026-11-25 12:01:10 UTC; as a number where the calendar has none for it."""
    return _dated(instant, "%Y-%m-%d %H:%M:%S UTC", UTC)


def format_local(instant: float) -> str:
    """The same by the clock on their wall, which says how far that is from UTC: 2026-11-25 13:01:10 +0100."""
    return _dated(instant, "%Y-%m-%d %H:%M:%S %z")


def format_time(instant: float) -> str:
    """The same without the date, for what is read as it happens: 13:01:10 +0100."""
    return _dated(instant, "%H:%M:%S %z")


def _dated(instant: float, form: str, zone: tzinfo | None = None) -> str:
    try:
        return datetime.fromtimestamp(instant, UTC).astimezone(zone).strftime(form)
    except (ValueError, OverflowError, OSError):  # a stranger wrote it
        return f"{instant:g} s since 1970"


def format_duration(seconds: float) -> str:
    """Seconds for people, in at most two units: 260µs, 41ms, 4.2s, 6m12s, 2h05m, 3d04h."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds < 0.0009995:
        return f"{seconds * 1e6:.0f}µs" if seconds else "0s"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes_rest = divmod(minutes, 60)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{minutes}m{rest:02d}s"
    if whole < 86400:
        return f"{hours}h{minutes_rest:02d}m"
    return f"{hours // 24}d{hours % 24:02d}h"


def format_rate(number: float) -> str:
    """Something a second, for people: 1,204, 31, 2.1, 0.042."""
    return f"{number:,.0f}" if number >= 9.95 or not number else f"{number:.1f}" if number >= 0.095 else f"{number:.2g}"


def counted(number: int, noun: str) -> str:
    """So many of something, for people: 1 job, 1,204 jobs."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def format_size(size: int) -> str:
    """Bytes for people: 512 B, 1.5 KiB, 128 MiB."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1023.5:
            return f"{amount:.1f} {unit}" if amount < 9.95 and unit != "B" else f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
