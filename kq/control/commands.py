"""The command lines that do what the monitor and the web page do: both show them before they act. Pure.

The monitor runs nothing else; on the page they are there to be learnt, and repeated by a script.
"""

from __future__ import annotations

from shlex import join
from typing import TypeAlias

#: The words of a command line, after `kq`.
Words: TypeAlias = tuple[str, ...]


def written(words: Words) -> str:
    """A command line as it is typed."""
    return join(("kq", *words))


def pause(queue: str) -> Words:
    return "queues", "pause", queue


def resume(queue: str) -> Words:
    return "queues", "resume", queue


def pause_type(type: str) -> Words:
    return "queues", "pause", "--type", type


def resume_type(type: str) -> Words:
    return "queues", "resume", "--type", type


def purge(queue: str, *, buried: bool = False) -> Words:
    return "queues", "purge", queue, *(("--buried",) if buried else ()), "--yes"


def remove_queue(queue: str) -> Words:
    return "queues", "rm", queue


def kick(*ids: str) -> Words:
    return "jobs", "kick", *ids, "--yes"


def kick_all(
    *,
    queue: str = "",
    type: str = "",
    error: str = "",
    place: str = "",
    search: str = "",
    older: str = "",
    limit: int = 0,
) -> Words:
    """Kick what these choose; all that lies buried, where none of them is said."""
    chosen = {"--queue": queue, "--type": type, "--error": error, "--place": place, "--search": search}
    chosen |= {"--older": older}
    words = [word for name, value in chosen.items() if value for word in (name, value)] or ["--all"]
    return "jobs", "kick", *words, *(("--limit", str(limit)) if limit else ()), "--yes"


def answer(id: str, answer: str) -> Words:
    """answer: done or repeat."""
    return "jobs", "kick", id, f"--{answer}"


def bury(*ids: str) -> Words:
    return "jobs", "bury", *ids


def revoke(id: str, *, interrupt: bool = False) -> Words:
    return "jobs", "revoke", id, *(("--interrupt",) if interrupt else ())


def stream(id: str) -> Words:
    return "jobs", "stream", id


def stack(id: str) -> Words:
    return "jobs", "stack", id


def run_now(id: str) -> Words:
    return "jobs", "edit", id, "--set", "delay=0", "--unchecked"


def edit(id: str) -> Words:
    return "jobs", "edit", id


def rehearse(id: str) -> Words:
    return "jobs", "rehearse", id


def complete(id: str) -> Words:
    return "jobs", "complete", id


def delete(*ids: str) -> Words:
    return "jobs", "rm", *ids, "--yes"


def retire(worker: str) -> Words:
    return "workers", "retire", worker


def set_worker(worker: str) -> Words:
    return "workers", "set", worker


def lift(effect: str) -> Words:
    return "effects", "lift", effect
