"""`kq completion`: what makes a shell complete kq's verbs, options and names."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from kq.cli.frame import Root, flags, verb
from kq.cli.show import print_json

SHELLS = ("bash", "zsh", "fish")
#: The name of this variable is click's.
VARIABLE = "_KQ_COMPLETE"


@verb("completion")
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def command(shell: str | None) -> None:
    """Print what makes SHELL complete verbs, options, queues, job types, jobs and workers. [that of $SHELL]

    \b
    bash, in ~/.bashrc:                 eval "$(kq completion bash)"
    zsh, in ~/.zshrc after compinit:    eval "$(kq completion zsh)"
    fish:    kq completion fish > ~/.config/fish/completions/kq.fish
    """
    shell = shell or Path(os.environ.get("SHELL", "")).name
    if shell not in SHELLS:
        raise click.UsageError(f"say which shell: {', '.join(SHELLS)}", click.get_current_context())
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(Root(), {}, "kq", VARIABLE)
    text = script.source_template % script.source_vars()
    if flags().json:
        print_json({"shell": shell, "script": text})
    else:
        click.echo(text)
