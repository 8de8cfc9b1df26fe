"""Text of strangers on a terminal: what it holds must not move the cursor, colour or forge a line."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable

#: Patterns that are compiled when they are needed, which takes half a millisecond each: few programs print anything.
#: Characters that Unicode lets a font leave out, so that two names with and without one look the same: zero-width
#: spaces and joiners, soft hyphens, fillers, variation selectors, tags. Annotations (U+FFF9 to U+FFFB) too.
_IGNORED = (
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
#: Control characters from DEL on, those that turn the direction of reading, other ends of lines, halves of characters,
#: and those that are ignored. Those before DEL stand in no string of JSON, but between its parts.
_HIDDEN = f"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff{_IGNORED}"
#: Symbols that U+FE0F may follow, which makes a coloured picture of them.
_SYMBOLS = "\xa9\xae\u203c-\u3299\U0001f000-\U0001faff"
_EMOJI = f"(?!(?<=[{_SYMBOLS}])\ufe0f)"
_UNSEEN_IN_JSON = f"{_EMOJI}[{_HIDDEN}]"
_UNSEEN = f"{_EMOJI}[\x00-\x1f{_HIDDEN}]"
#: A command of kq inside a sentence, and perhaps a word more: where it ends is not to be seen.
_COMMAND = r"kq(?: [a-z]+){1,3}(?: -{1,2}[\w-]+(?: [^\s,;]+)?| [^\s,;]*[\d.:/-][^\s,;]*)*"
#: Characters that one cell of a table, or one line of a log, has at most.
LONGEST = 4096


def printable(text: str) -> str:
    """text on one line, with each character that can't be seen spelt out as Python does: `\\x1b`, `\\n`, `\\u200b`.

    Emoji stay whole where U+FE0F follows a symbol. U+200D is spelt out between emoji as well: many terminals draw them
    side by side with and without it.
    """
    if text.isascii() and text.isprintable():  # then none of these is in it, and the pattern is not needed
        return text
    return spelt(text, lambda char: char.encode("unicode_escape").decode())


def printable_lines(text: str) -> str:
    """The same for a text of several lines, which stay lines."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(text: str) -> str:
    """JSON that means the same, with each character that can't be seen spelt out as JSON does: `\\u202e`."""
    return re.sub(_UNSEEN_IN_JSON, lambda found: json.dumps(found[0])[1:-1], text)


def spelt(text: str, spell: Callable[[str], str]) -> str:
    """text with what `spell` makes of each character that can't be seen."""
    return re.sub(_UNSEEN, lambda found: spell(found[0]), text)


def is_utf8(text: str) -> bool:
    """Whether text can be written as UTF-8. Arguments, variables and file names of other encodings can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def visible(name: str) -> bool:
    """Whether each character of name can be seen, so that no other name looks the same for want of one."""
    return name.isprintable() and (name.isascii() or not re.search(f"[{_HIDDEN}]", name))


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
