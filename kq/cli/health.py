"""`kq health`: ask a worker whether it takes jobs, for a container's health check."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException

import click

from kq.cli.failing import DONE, NO, UNAVAILABLE
from kq.cli.frame import Duration, flags, verb
from kq.cli.show import print_json
from kq.cli.target import settings
from kq.errors import LOOK, ConfigError
from kq.plain import printable
from kq.url import host_and_port


@verb("health")
@click.argument("address", required=False)
@click.option("--live", is_flag=True, help="Only whether its loop goes round, also without a broker.")
@click.option("--timeout", type=Duration(), default=3.0, metavar="3s", help="For how long to wait. [3s]")
def command(address: str | None, live: bool, timeout: float) -> int:
    """Ask the worker at ADDRESS (HOST:PORT) whether it takes jobs. [worker.health]

    Exit code 0: it does; 1: it does not, and says why; 69: nobody answers.
    """
    where = address or settings().config.worker.health
    if where is None:
        raise ConfigError(
            "no worker.health is set", fix="Write  health: 127.0.0.1:8090  under worker:, or say HOST:PORT."
        )
    status, said = asked(where, "/livez" if live else "/readyz", timeout)
    if flags().json:
        print_json({"address": where, "ok": status == 200, "said": said})
    else:
        click.echo(printable(f"{where}: {said}"), err=status != 200)
        if status != 200:
            click.echo(f"  {LOOK}", err=True)
    return DONE if status == 200 else UNAVAILABLE if status is None else NO


def asked(where: str, path: str, timeout: float) -> tuple[int | None, str]:
    """The status of an answer, None when there is none, and what it says."""
    host, port = host_and_port(where)
    # Who listens everywhere is asked here.
    connection = HTTPConnection(
        "127.0.0.1" if host in ("", "0.0.0.0") else "::1" if host == "::" else host, port, timeout
    )
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(1000).decode("utf-8", "replace").strip()
    except (OSError, HTTPException) as error:
        return None, f"nobody answers: {error}"
    finally:
        connection.close()
