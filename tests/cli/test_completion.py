"""What the shell offers when somebody presses the tab key."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import pytest

from tests.cli.conftest import Place
from tests.servers import free_port

JOBS = '''
import kq

print("an application that talks")
app = kq.App("shop")


@app.job(queue="mail")
def send_invoice(to: str) -> None:
    """Send an invoice."""
'''


def offered(place: Place, line: str, **environment: str) -> list[str]:
    """What bash is offered at the end of line."""
    words = line.split(" ")
    said = place.kq(_KQ_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1), **environment)
    assert said.err == ""
    return [each.partition(",")[2] for each in said.out.split()]


def test_verbs_options_and_choices_are_offered(shop: Place) -> None:
    assert offered(shop, "kq wo") == ["worker", "workers"]
    assert "--state" in offered(shop, "kq jobs ls --s")
    assert offered(shop, "kq jobs ls --state b") == ["buried"]
    assert offered(shop, "kq explain KQ30") == ["KQ301", "KQ302", "KQ303", "KQ304"]


def test_names_that_the_broker_and_the_application_know_are_offered(shop: Place) -> None:
    id = shop.kq("submit", "send_invoice", "bo").out.split()[-1]
    other = shop.kq("submit", "send_invoice", "al").out.split()[-1]
    shop.kq("jobs", "bury", other)
    assert offered(shop, "kq queues pause ma") == ["mail"]
    assert offered(shop, "kq jobs ls --queue ") == ["mail"]
    assert offered(shop, "kq submit send") == ["send_invoice"]
    assert offered(shop, "kq submit jobs.") == ["jobs.send_invoice"]
    assert set(offered(shop, "kq jobs show ")) == {id, other}
    assert offered(shop, "kq jobs kick ") == [other]
    assert offered(shop, f"kq --url sqlite:///{shop.folder}/other.db jobs show ") == []


def test_a_broker_that_is_not_there_offers_nothing_soon(place: Place) -> None:
    began = time.monotonic()
    assert offered(place, "kq jobs show ", KQ_URL=f"redis://127.0.0.1:{free_port()}/0") == []
    assert time.monotonic() - began < 10
    assert list(place.folder.iterdir()) == []


def test_a_wrong_setting_offers_nothing_and_says_nothing(place: Place) -> None:
    assert offered(place, "kq jobs show ", KQ_URL="redos://x") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_is_told_how(place: Place, shell: str) -> None:
    script = place.kq("completion", shell)
    assert (script.code, script.err) == (0, "")
    assert f"_KQ_COMPLETE={shell}_complete" in script.out
    assert place.kq("completion", SHELL=f"/usr/bin/{shell}").out == script.out
    if shutil.which(shell):
        subprocess.run([shell, "-n", "/dev/stdin"], input=script.out, text=True, check=True, timeout=60)


def test_bash_completes_with_it(shop: Place) -> None:
    shop.write("kq", f'#!/bin/sh\nexec {" ".join(shop.command())} "$@"\n').chmod(0o755)
    lines = 'eval "$(kq completion bash)"; COMP_WORDS=(kq que); COMP_CWORD=1; _kq_completion kq; echo "${COMPREPLY[@]}"'
    path = f"{shop.folder}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", lines],
        cwd=shop.folder,
        env=shop.environment(PATH=path),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("queues\n", "")


def test_without_a_shell_it_is_asked_for(place: Place) -> None:
    said = place.kq("completion", SHELL="/bin/tcsh")
    assert said.code == 2
    assert "say which shell: bash, zsh, fish" in said.err
