"""The line that begins with a colon: which verbs of kq there are, what may follow, and which of them only look."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

import click

from kq.cli.frame import Root
from kq.cli.monitor.scene import Scene
from kq.control.commands import Words

#: Verbs that change nothing, the usual one of each noun too.
LOOKING: frozenset[Words] = frozenset(
    {
        ("doctor",),
        ("status",),
        ("events",),
        ("logs",),
        ("health",),
        ("metrics",),
        ("explain",),
        ("completion",),
        ("jobs",),
        ("jobs", "ls"),
        ("jobs", "show"),
        ("jobs", "why"),
        ("jobs", "stack"),
        ("jobs", "stream"),
        ("jobs", "audit"),
        ("queues",),
        ("queues", "ls"),
        ("queues", "why"),
        ("workers",),
        ("workers", "ls"),
        ("workers", "ping"),
        ("effects",),
        ("effects", "ls"),
        ("effects", "held"),
        ("effects", "show"),
    }
)
#: What is offered for an argument, by its name: kinds of names that the scene knows.
QUEUE, WORKER, JOB = "\0queue", "\0worker", "\0job"
_KINDS = {"queue": QUEUE, "name": WORKER, "id": JOB, "ids": JOB}


def tree() -> Mapping[Words, tuple[str, ...]]:
    """All verbs; what may follow each: a verb, an option, or a kind of names. Imports every verb."""
    return dict(_branches(Root(), ()))


def _branches(command: click.Command, words: Words) -> Iterator[tuple[Words, tuple[str, ...]]]:
    context = click.Context(command)
    below = command.list_commands(context) if isinstance(command, click.Group) else []
    options = [name for each in command.params for name in each.opts if name.startswith("--") and not _hidden(each)]
    arguments = [each.name for each in command.params if isinstance(each, click.Argument)]
    kinds = [_KINDS[name] for name in arguments if name in _KINDS]
    yield words, (*below, *kinds, *options)
    for name in below:
        found = command.get_command(context, name) if isinstance(command, click.Group) else None
        if found is not None:
            yield from _branches(found, (*words, name))


def _hidden(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option) and parameter.hidden


def completed(text: str, verbs: Mapping[Words, tuple[str, ...]], scene: Scene) -> tuple[str, tuple[str, ...]]:
    """text with what Tab makes of it, and what else it may become."""
    *before, begun = text.split(" ")
    words = tuple(filter(None, before))
    verb = next((words[:count] for count in (2, 1, 0) if words[:count] in verbs), ())
    offers = sorted({name for each in verbs.get(verb, ()) for name in _names(each, scene) if name.startswith(begun)})
    if not begun.startswith("-"):
        offers = [name for name in offers if not name.startswith("-")] or offers
    if not offers:
        return text, ()
    common = _common(offers)
    end = " " if len(offers) == 1 else ""
    shown = tuple(offers) if len(offers) > 1 else ()
    return " ".join([*before, (shlex.quote(common) if len(offers) == 1 else common) + end]), shown


def _common(words: Sequence[str]) -> str:
    """The beginning that all words have."""
    first, last = min(words), max(words)
    same = next((index for index, letter in enumerate(first) if letter != last[index]), len(first))
    return first[:same]


def _names(offered: str, scene: Scene) -> Iterator[str]:
    shot = scene.shot
    if not offered.startswith("\0"):
        yield offered
    elif shot is not None and offered == QUEUE:
        yield from (row.name for row in shot.queues)
    elif shot is not None and offered == WORKER:
        yield from (row.name for row in shot.workers)
    elif shot is not None:
        yield from (row.id for row in shot.recent)
        yield from (job.id for row in shot.workers for job in row.running)
        yield from (job.id for job in (scene.book.jobs if scene.book is not None else ()))


def only_looks(words: Words) -> bool:
    """Whether a command line changes nothing. One that does not begin with its verb is not trusted."""
    nouns = {verb[0] for verb in LOOKING if len(verb) == 2}
    return words[:2] in LOOKING if words[:1] and words[0] in nouns else words[:1] in LOOKING


def purged(words: Words) -> str:
    """The queue that a command line would empty; "" for every other one."""
    plain = [word for word in words if not word.startswith("-")]
    return plain[2] if plain[:2] == ["queues", "purge"] and len(plain) == 3 else ""
