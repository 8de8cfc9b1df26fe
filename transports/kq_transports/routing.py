"""Which queues get a message that is published to an exchange: AMQP's direct, fanout and topic."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from kq_transports.engine import Binding

KINDS = frozenset({"direct", "topic", "fanout"})


def route(kind: str, bindings: Iterable[Binding], key: str) -> list[str]:
    """The queues bound to an exchange of that kind that get key, each once."""
    if kind == "fanout":
        found = (binding.queue for binding in bindings)
    elif kind == "topic":
        found = (binding.queue for binding in bindings if matches(binding.key, key))
    else:
        found = (binding.queue for binding in bindings if binding.key == key)
    return list(dict.fromkeys(found))


def matches(pattern: str, key: str) -> bool:
    """Whether a topic pattern covers key: `*` stands for one word, `#` for any number; words end at dots.

    >>> matches("job.*.done", "job.mail.done"), matches("job.#", "job"), matches("*", "job.done")
    (True, True, False)
    """
    return _compiled(pattern).fullmatch(_words(key)) is not None


def _words(text: str) -> str:
    """Each word with a dot before it, so that no word at all is the empty text."""
    return f".{text}" if text else ""


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    words = re.sub(r"(\.#)+(?=\.|$)", ".#", _words(pattern)).split(".")[1:]
    return re.compile("".join(_SPECIAL.get(word) or rf"\.{re.escape(word)}" for word in words))


_SPECIAL = {"*": r"\.[^.]*", "#": r"(?:\.[^.]*)*"}
