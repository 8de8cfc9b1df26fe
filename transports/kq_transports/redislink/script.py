"""A Lua script, known to servers by the digest of its text."""

from __future__ import annotations

import hashlib


class Script:
    """A Lua script. repeatable: whether running it twice does no more than once.

    Then a call whose answer was lost with its socket is made again on the next one.
    """

    def __init__(self, text: str, *, repeatable: bool = True) -> None:
        self.text = text
        self.repeatable = repeatable
        # Redis names scripts so; nothing secret depends on it.
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
