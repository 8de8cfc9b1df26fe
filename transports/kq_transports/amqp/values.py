"""AMQP's values, tables and message properties as bytes, and back.

As in AMQP 0-9-1 with RabbitMQ's types. py-amqp has such functions too; these cost a third, and there is one
of them in the path of each message.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable, Container, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from struct import Struct, pack
from typing import Any

_U16, _U32, _U64 = Struct(">H"), Struct(">I"), Struct(">Q")
_TEXT, _I32, _I64, _FLOAT = Struct(">cI"), Struct(">ci"), Struct(">cq"), Struct(">cd")

#: Bytes of the longest name that AMQP carries.
LONGEST_NAME = 255

# Message properties.

_SHORT, _NAME, _TABLE, _OCTET, _TIME = "short", "name", "table", "octet", "time"
#: In the order in which they are sent; the first has the highest bit of the flags.
PROPERTIES = {
    "content_type": _NAME,
    "content_encoding": _NAME,
    "application_headers": _TABLE,
    "delivery_mode": _OCTET,
    "priority": _OCTET,
    "correlation_id": _SHORT,
    "reply_to": _SHORT,
    "expiration": _SHORT,
    "message_id": _SHORT,
    "timestamp": _TIME,
    "type": _SHORT,
    "user_id": _SHORT,
    "app_id": _SHORT,
    "cluster_id": _SHORT,
}
_BITS = tuple((1 << (15 - index), name, kind) for index, (name, kind) in enumerate(PROPERTIES.items()))


def packed_properties(properties: Mapping[str, Any]) -> bytes:
    """Flags and values of those of properties that AMQP knows; None counts as absent.

    Raises ValueError for what cannot be sent: a short text of more than 255 bytes, a value of no AMQP type.
    """
    flags, parts = 0, [b""]
    for bit, name, packed in _PACKING:
        value = properties.get(name)
        if value is not None:
            flags |= bit
            parts.append(packed(value))
    parts[0] = _U16.pack(flags)
    return b"".join(parts)


def unpacked_properties(buffer: bytes, offset: int, without: Container[str] = ()) -> dict[str, Any]:
    """The properties that begin at offset. without: headers that are not wanted, and cost nothing."""
    (flags,) = _U16.unpack_from(buffer, offset)
    offset += 2
    properties: dict[str, Any] = {}
    for bit, name, kind in _BITS:
        if not flags & bit:
            continue
        if kind is _SHORT or kind is _NAME:
            end = offset + 1 + buffer[offset]
            properties[name] = buffer[offset + 1 : end].decode("utf-8", "replace")
            offset = end
        elif kind is _OCTET:
            properties[name] = buffer[offset]
            offset += 1
        elif kind is _TABLE:
            end = offset + 4 + _U32.unpack_from(buffer, offset)[0]
            properties[name] = _table(buffer, offset + 4, end, without)
            offset = end
        else:
            properties[name] = _U64.unpack_from(buffer, offset)[0]
            offset += 8
    if offset > len(buffer):
        raise ValueError("a property is longer than its frame")
    return properties


def packed_short(text: Any) -> bytes:
    """A short text: at most 255 bytes."""
    data = text.encode() if isinstance(text, str) else bytes(text)
    if len(data) > 255:
        raise ValueError(f"{data[:40]!r}… has {len(data)} bytes; AMQP's short texts have 255 at most")
    return bytes((len(data),)) + data


#: The same for what comes again and again: names of headers, types of contents.
_packed_name = lru_cache(maxsize=1024)(packed_short)


def _packed_time(value: Any) -> bytes:
    return _U64.pack(calendar.timegm(value.utctimetuple()) if isinstance(value, datetime) else int(value))


# Tables.


def packed_table(table: Mapping[str, Any]) -> bytes:
    """table with its length."""
    parts: list[bytes] = []
    for key, value in table.items():
        parts += _packed_name(key), _BY_TYPE.get(type(value), _packed)(value)
    data = b"".join(parts)
    return _U32.pack(len(data)) + data


def _packed(value: Any) -> bytes:
    pack_one = _BY_TYPE.get(type(value))
    if pack_one is not None:
        return pack_one(value)
    for kind, pack_one in _BY_TYPE.items():
        if isinstance(value, kind):
            return pack_one(value)
    raise ValueError(f"{value!r} has no type that AMQP can carry; use text, numbers, lists and dicts")


def _packed_text(value: Any) -> bytes:
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else bytes(value)
    return _TEXT.pack(b"S", len(data)) + data


def _packed_int(value: int) -> bytes:
    if -0x80000000 <= value <= 0x7FFFFFFF:
        return _I32.pack(b"I", value)
    if -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
        return _I64.pack(b"l", value)
    raise ValueError(f"{value} does not fit into AMQP's 64 bits; send it as text")


def _packed_decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or exponent > 0:
        raise ValueError(f"{value} is no decimal that AMQP can carry; send it as text")
    number = int("".join(map(str, digits)))
    return pack(">cBi", b"D", -exponent, -number if sign else number)


def _packed_list(value: Any) -> bytes:
    data = b"".join(map(_packed, value))
    return _TEXT.pack(b"A", len(data)) + data


_BY_TYPE: dict[type, Callable[[Any], bytes]] = {
    str: _packed_text,
    bool: lambda value: b"t\x01" if value else b"t\x00",
    int: _packed_int,
    float: lambda value: _FLOAT.pack(b"d", value),
    type(None): lambda value: b"V",
    bytes: _packed_text,
    dict: lambda value: b"F" + packed_table(value),
    list: _packed_list,
    tuple: _packed_list,
    datetime: lambda value: b"T" + _packed_time(value),
    Decimal: _packed_decimal,
}

_PACKERS: dict[str, Callable[[Any], bytes]] = {
    _SHORT: packed_short,
    _NAME: _packed_name,
    _TABLE: packed_table,
    _OCTET: lru_cache(maxsize=256)(lambda value: bytes((value,))),
    _TIME: _packed_time,
}
_PACKING = tuple((bit, name, _PACKERS[kind]) for bit, name, kind in _BITS)

_FIXED = {
    letter: (Struct(code), Struct(code).size)
    for letter, code in {
        ord("I"): ">i",
        ord("i"): ">I",
        ord("l"): ">q",
        ord("L"): ">q",
        ord("d"): ">d",
        ord("f"): ">f",
        ord("b"): ">b",
        ord("B"): ">B",
        ord("s"): ">h",
        ord("U"): ">h",
        ord("u"): ">H",
    }.items()
}


_OVER = "the last value of a table or list is longer than the table or list"


def _table(buffer: bytes, offset: int, end: int, without: Container[str] = ()) -> dict[str, Any]:
    table: dict[str, Any] = {}
    while offset < end:
        begin = offset + 1
        offset = begin + buffer[offset]
        key = buffer[begin:offset].decode("utf-8", "replace")
        if key in without:
            offset = _skipped(buffer, offset)
        else:
            table[key], offset = _value(buffer, offset)
    if offset != end:
        raise ValueError(_OVER)
    return table


def _skipped(buffer: bytes, offset: int) -> int:
    """Where the value at offset ends; only the kinds that have a length are skipped without being read."""
    if buffer[offset] in b"SxFA":
        return offset + 5 + int(_U32.unpack_from(buffer, offset + 1)[0])
    return _value(buffer, offset)[1]


def _value(buffer: bytes, offset: int) -> tuple[Any, int]:
    letter = buffer[offset]
    offset += 1
    if letter in b"SxFA":
        begin = offset + 4
        end = begin + _U32.unpack_from(buffer, offset)[0]
        return _LONG[letter](buffer, begin, end), end
    fixed = _FIXED.get(letter)
    if fixed is not None:
        return fixed[0].unpack_from(buffer, offset)[0], offset + fixed[1]
    if letter == ord("t"):
        return bool(buffer[offset]), offset + 1
    if letter == ord("V"):
        return None, offset
    if letter == ord("T"):
        return datetime.fromtimestamp(_U64.unpack_from(buffer, offset)[0], UTC), offset + 8
    if letter == ord("D"):
        number = int.from_bytes(buffer[offset + 1 : offset + 5], "big", signed=True)
        return Decimal(number).scaleb(-buffer[offset]), offset + 5
    raise ValueError(f"a table has a value of the unknown type {chr(letter)!r}")


def _text(buffer: bytes, begin: int, end: int) -> str | bytes:
    data = buffer[begin:end]
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _list(buffer: bytes, offset: int, end: int) -> list[Any]:
    values = []
    while offset < end:
        value, offset = _value(buffer, offset)
        values.append(value)
    if offset != end:
        raise ValueError(_OVER)
    return values


_LONG: dict[int, Callable[[bytes, int, int], Any]] = {
    ord("S"): _text,
    ord("x"): lambda buffer, begin, end: buffer[begin:end],
    ord("F"): _table,
    ord("A"): _list,
}


def no_name(queue: str) -> str:
    """Why no queue of RabbitMQ can have this name; "" when one can."""
    try:
        size = len(queue.encode())
    except UnicodeEncodeError:
        return "its name is no text"
    if size > LONGEST_NAME:
        return f"its name has {size} bytes, and AMQP carries {LONGEST_NAME}"
    # RabbitMQ takes them away in silence, and then the queue has another name.
    return "its name has a line break" if "\n" in queue or "\r" in queue else ""
