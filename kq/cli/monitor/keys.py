"""Keys: what a terminal sends when one is pressed, what it is called, and what each is for. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

#: A text that was pasted is a key of its own, that begins so: pasting must not press.
PASTE = "paste "

_NAMES = {
    b"\r": "enter",
    b"\n": "enter",
    b"\t": "tab",
    b"\x7f": "backspace",
    b"\x08": "backspace",
    b"\x0c": "redraw",
    b"\x15": "clear",
    b"\x1b": "esc",
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1b[C": "right",
    b"\x1b[D": "left",
    b"\x1b[H": "home",
    b"\x1b[F": "end",
    b"\x1b[1~": "home",
    b"\x1b[4~": "end",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[Z": "back tab",
}
_PASTED = re.compile(rb"\x1b\[200~(.*?)\x1b\[201~", re.DOTALL)
_BEGUN_PASTE = re.compile(rb"\x1b\[200~")
_SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[@-~])")
_BEGUN = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")
#: Bytes that a character of UTF-8 has, by its first.
_LENGTHS = ((0xF8, 1), (0xF0, 4), (0xE0, 3), (0xC0, 2))


def read(typed: bytes, *, whole: bool = False) -> tuple[list[str], bytes]:
    """The keys in typed, and what is the beginning of one. whole: nothing more comes, so a lone escape is one."""
    keys: list[str] = []
    while typed:
        key, length = _first(typed, whole)
        if not length:
            break
        keys += [key] if key else []
        typed = typed[length:]
    return keys, typed


def _first(typed: bytes, whole: bool) -> tuple[str, int]:
    """The first key, "" for one without a name, and how many bytes it takes; 0 when there must come more."""
    if found := _PASTED.match(typed):
        return PASTE + found[1].decode("utf-8", "replace"), found.end()
    if _BEGUN_PASTE.match(typed) and not whole:
        return "", 0
    if found := _SEQUENCE.match(typed):
        return _NAMES.get(found[0].replace(b"\x1bO", b"\x1b["), ""), found.end()
    if _BEGUN.match(typed) and not whole:
        return "", 0
    if name := _NAMES.get(typed[:1]):
        return name, 1
    length = next((length for least, length in _LENGTHS if typed[0] >= least), 1)
    end = 1
    while end < min(length, len(typed)) and 0x80 <= typed[end] < 0xC0:
        end += 1
    if end == len(typed) < length and not whole:
        return "", 0
    text = typed[:end].decode("utf-8", "ignore")
    return (text if text.isprintable() else ""), end


class Key(NamedTuple):
    """keys: as the help names them. short: in the line at the bottom, "" for one that is not there. changes: a job,
    a queue or a worker, so not when only looking is allowed.
    """

    keys: str
    does: str
    short: str = ""
    changes: bool = False


#: All of them, those first that the line at the bottom names as long as there is room.
KEYS = (
    Key("Tab 1 2 3", "go to the next pane; to queues, workers, failures", "Tab pane"),
    Key("↑ ↓ j k", "move; also PgUp, PgDn, Home, End", "↑↓ move"),
    Key("Enter 4", "open what is chosen: why a queue waits and its jobs, a worker, a job", "Enter open"),
    Key("/", "show only some rows: queue:mail state:buried err:SMTP", "/ filter"),
    Key("p", "pause the queue, or resume it", "p pause", True),
    Key("K", "kick: put buried jobs back into their queue", "K kick", True),
    Key("b", "bury: set jobs aside that wait", "b bury", True),
    Key("x", "revoke: end jobs for good, also those that run", "x revoke", True),
    Key("s", "sort by the next column", "s sort"),
    Key("g", "failures one by one, or grouped by error", "g group"),
    Key("e r", "edit a job in $EDITOR; rehearse it, to see what it would do", "e edit", True),
    Key("R", "run a delayed job now", "R run now", True),
    Key("D", "drain: let the worker finish what runs, and end", "D drain", True),
    Key("Space", "mark: what follows is done to all that is marked", "Space mark"),
    Key("t", "tell where a running job is: its stack", "t stack"),
    Key("f", "freeze the picture, or go on", "f freeze"),
    Key("y", "copy the id or name to the clipboard", "y copy"),
    Key(":", "type a command of kq; Tab completes", ": command"),
    Key("q", "quit", "q quit"),
    Key("?", "help", "? help"),
    Key("Esc", "take away marks, then the filter; else back"),
    Key("+ -", "look more often, less often"),
    Key("← →", "step through what is played again"),
)
