"""Text of strangers on a terminal: what it holds must not move the cursor, colour or forge a line."""

from __future__ import annotations

import re

#: Control characters, those that turn the direction of reading, other ends of lines, and halves of characters.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """text on one line, with what can't be seen written as Python would: `\\x1b`, `\\n`."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
