"""Text of strangers on a terminal: what it holds must not move the cursor, colour or forge a line."""

from __future__ import annotations

import re

#: Patterns that are compiled when they are needed, which takes half a millisecond each: few programs print anything.
#: Control characters, those that turn the direction of reading, other ends of lines, and halves of characters.
_UNSEEN = "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
#: The same without those that no JSON holds inside its strings, and that stand between them when it is laid out.
_UNSEEN_IN_JSON = "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
#: Characters that one cell of a table, or one line of a log, has at most.
LONGEST = 4096


def printable(text: str) -> str:
    """text on one line, with what can't be seen written as Python would: `\\x1b`, `\\n`."""
    return re.sub(_UNSEEN, lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_json(text: str) -> str:
    """JSON that means the same, with what can't be seen written as JSON would: `\\u202e`."""
    return re.sub(_UNSEEN_IN_JSON, lambda found: f"\\u{ord(found[0]):04x}", text)


def cut(text: str, width: int) -> str:
    """text, of at most width characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"
