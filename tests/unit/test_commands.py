"""The command lines that monitor and page show: kq understands each of them."""

from __future__ import annotations

import shlex

import click
import pytest

from kq.cli.frame import Root
from kq.control import commands
from kq.control.commands import Words, written

#: Names that a shell would take apart.
ODD = "it's a (test) $HOME"


def parsed(line: str) -> dict[str, object]:
    """What a command line says to its verb. Raises click.UsageError where kq would not understand it."""
    program, *rest = shlex.split(line)
    assert program == "kq"
    command: click.Command = Root()
    context = click.Context(command, info_name="kq")
    while isinstance(command, click.Group):
        _, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command = found
        context = click.Context(command, context)
    return command.make_context(command.name, rest, context).params


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (commands.pause(ODD), {"queue": ODD, "type": None}),
        (commands.resume("mail"), {"queue": "mail"}),
        (commands.pause_type(ODD), {"queue": None, "type": ODD}),
        (commands.resume_type("send"), {"type": "send"}),
        (commands.purge("mail"), {"queue": "mail", "buried": False, "yes": True}),
        (commands.purge("mail", buried=True), {"buried": True}),
        (commands.remove_queue("mail"), {"queue": "mail"}),
        (commands.kick("1", "2"), {"ids": ("1", "2"), "yes": True}),
        (commands.kick_all(), {"everything": True, "limit": None}),
        (
            commands.kick_all(queue="q", type="t", error="E", place=ODD, search=ODD, older="5m", limit=1),
            {"queue": "q", "job_type": "t", "error": "E", "place": ODD, "search": ODD, "older": 300.0, "limit": 1},
        ),
        (commands.answer("1", "done"), {"ids": ("1",), "answer": "done", "outcome": "null"}),
        (commands.answer("1", "repeat"), {"answer": "repeat"}),
        (commands.bury("1", "2"), {"ids": ("1", "2")}),
        (commands.revoke("1"), {"ids": ("1",), "interrupt": False}),
        (commands.revoke("1", interrupt=True), {"interrupt": True}),
        (commands.stream("1"), {"id": "1", "follow": False}),
        (commands.run_now("1"), {"id": "1", "assignments": ("delay=0",), "unchecked": True}),
        (commands.edit("1"), {"id": "1", "assignments": ()}),
        (commands.complete("1"), {"ids": ("1",), "result": "null"}),
        (commands.delete("1", "2"), {"ids": ("1", "2"), "yes": True}),
        (commands.retire("w"), {"name": "w", "now": False}),
        (commands.lift(ODD), {"key": ODD}),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_a_line_says_to_kq_what_it_is_to_say(line: Words, said: dict[str, object]) -> None:
    found = parsed(written(line))
    assert {name: found[name] for name in said} == said
