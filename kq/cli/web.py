"""`kq web`: the page and its API as a program of their own."""

from __future__ import annotations

import logging
import secrets
import sys

import click

from kq.cli.frame import flags, verb
from kq.cli.lines import LOG_FORMAT, start_logging
from kq.cli.show import print_json
from kq.cli.target import any_app, settings
from kq.control import Control
from kq.credential import ROLES, Role, new_token, password_hash
from kq.errors import BadArguments

log = logging.getLogger("kq.web")


@verb("web")
@click.option("--listen", metavar="HOST:PORT", help="Where; who is not on this host must sign in. [127.0.0.1:8520]")
@click.option("--hash-password", "hashing", is_flag=True, help="Ask for a password, print its line for web.users, end.")
@click.option("--link", "linking", is_flag=True, help="Print a link that opens the page once, within an hour; end.")
@click.option("--new-token", "tokening", is_flag=True, help="Make a token, print it and its line for web.tokens, end.")
@click.option(
    "--role", type=click.Choice(ROLES), default="view", show_default=True, help="For the line that is printed."
)
@LOG_FORMAT
@click.option("--orders", type=int, default=-1, hidden=True)
@click.option("--trial", is_flag=True, hidden=True)
def command(
    listen: str | None,
    hashing: bool,
    linking: bool,
    tokening: bool,
    role: Role,
    format: str | None,
    orders: int,
    trial: bool,
) -> int | None:
    """Serve the web page and its API until TERM or INT.

    Without web.users it is for you alone: it listens on this host only, and is opened by a link that it prints on your
    terminal, or that kq web --link prints. Everything else is said in kq.yaml (docs/web.md).
    """
    if hashing:
        _tell("password", f"{role} {_hashed()}")
        return None
    if tokening:
        token, hash = new_token(secrets.token_bytes)
        _tell("token", f"{role} {hash}", token)
        return None
    loaded = settings(web__listen=listen)
    # Here and not above: what prints a hash needs no server, and --help neither.
    from kq.web.program import link_of, run

    if linking:
        click.echo(link_of(loaded.config.web))
        return None
    start_logging(format)
    app = any_app(loaded)
    if trial:
        return None
    try:
        with Control(app) as control:
            return run(control, loaded.config.web, orders, protected=loaded.config.protected)
    finally:
        app.close()


def _hashed() -> str:
    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    try:
        return password_hash(password, secrets.token_bytes)
    except ValueError as error:
        raise BadArguments(str(error), fix="Nothing was printed.") from error


def _tell(kind: str, line: str, token: str = "") -> None:
    if flags().json:
        print_json({"line": line, "token": token or None})
        return
    if token:
        click.echo(f"The token, which is not shown again: {token}", err=True)
    click.echo(line)
    click.echo(
        f"Write it into kq.yaml:  web: {{{'tokens' if token else 'users'}: {{NAME: {line.split()[0]} …}}}}", err=True
    )
