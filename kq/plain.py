"""Text of strangers on a terminal: what it holds must not move the cursor, colour or forge a line."""

from __future__ import annotations

import re
import textwrap

#: Patterns that are compiled when they are needed, which takes half a millisecond each: few programs print anything.
#: Control characters, those that turn the direction of reading, other ends of lines, and halves of characters.
_UNSEEN = "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
#: The same without those that no JSON holds inside its strings, and that stand between them when it is laid out.
_UNSEEN_IN_JSON = "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
#: A command of kq inside a sentence, and perhaps a word more: where it ends is not to be seen.
_COMMAND = r"kq(?: [a-z]+){1,3}(?: -{1,2}[\w-]+(?: [^\s,;]+)?| [^\s,;]*[\d.:/-][^\s,;]*)*"
#: Characters that one cell of a table, or one line of a log, has at most.
LONGEST = 4096


def printable(text: str) -> str:
    """text on one line, with what can't be seen written as Python would: `\\x1b`, `\\n`."""
    if text.isprintable():  # then none of these is in it, and the pattern is not needed
        return text
    return re.sub(_UNSEEN, lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_json(text: str) -> str:
    """JSON that means the same, with what can't be seen written as JSON would: `\\u202e`."""
    return re.sub(_UNSEEN_IN_JSON, lambda found: f"\\u{ord(found[0]):04x}", text)


def middle_cut(text: str, width: int) -> str:
    """text, of at most width characters: its beginning and its end, which tell names apart."""
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[len(text) - end :] if end else ''}"


def folded(text: str, width: int, indent: int = 0) -> str:
    """text on lines of at most width, broken where words end and never inside a command of kq that is to be copied.

    indent: blanks before all lines but the first, which has as many cells less.
    """
    whole = re.sub(_COMMAND, lambda found: found[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(whole, max(20, width - indent), break_long_words=False, break_on_hyphens=False)
    return f"\n{' ' * indent}".join(lines).replace("\0", " ")


def cut(text: str, width: int) -> str:
    """text, of at most width characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"
