"""Words as they are sent to a Redis (RESP). redis-py's own way takes four times the CPU."""

from __future__ import annotations

from typing import TypeAlias

Word: TypeAlias = str | bytes | int


def spelled(*words: Word) -> bytes:
    """Words that are part of a command."""
    parts = list[bytes]()
    for word in words:
        text = word if isinstance(word, bytes) else str(word).encode()
        parts += b"$%d" % len(text), text
    parts.append(b"")
    return b"\r\n".join(parts)


def as_command(count: int, spelled: bytes) -> bytes:
    """A command of so many words, which are spelled."""
    return b"*%d\r\n%b" % (count, spelled)
