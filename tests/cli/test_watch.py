"""`-w`: looking again and again."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess

import pytest

from kq.conformance.contract.waiting import eventually
from tests.cli.conftest import Place, heed_ctrl_c
from tests.conftest import available
from tests.servers import RedisServer


@pytest.fixture
def shop(place: Place) -> Place:
    place.write("kq.yaml", "url: sqlite:///kq.db\nsubmit_timeout: 1s\n")
    assert place.kq("submit", "work", "1", "--queue", "mail").code == 0
    return place


def test_what_changes_is_seen_and_ctrl_c_ends_it(shop: Place) -> None:
    with shop.watching("queues", "-w", "--every", "0.2s", "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())[0]["ready"] == 1
        assert shop.kq("submit", "work", "2", "--queue", "mail").code == 0
        eventually(lambda: json.loads(process.stdout.readline())[0]["ready"] == 2, "the second job is seen")  # type: ignore[union-attr]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


def test_on_a_terminal_it_is_one_screen_that_is_written_over(shop: Place) -> None:
    ours, theirs = pty.openpty()
    environment = shop.environment(TERM="xterm", COLUMNS="60", LINES="5")
    command = shop.command("jobs", "-w", "--every", "0.2s")
    with subprocess.Popen(
        command, cwd=shop.folder, env=environment, stdout=theirs, stderr=theirs, preexec_fn=heed_ctrl_c
    ) as process:
        os.close(theirs)
        seen = b""
        while seen.count(b"\x1b[H") < 4:
            seen += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    os.close(ours)
    first, second = seen.split(b"\x1b[H")[1:3]
    assert b"every 200ms: kq jobs" in second
    assert b"work" in second
    assert (first.count(b"\n"), second.count(b"\n")) == (4, 4)
    assert second.endswith(b"\x1b[J")


def test_a_broker_that_goes_away_is_told_and_looked_at_again(place: Place) -> None:
    with available(RedisServer) as server:
        place.write("kq.yaml", f"url: {server.url}\nsubmit_timeout: 1s\n")
        assert place.kq("submit", "work", "1", "--queue", "mail").code == 0
        with place.watching("queues", "-w", "--every", "0.2s", "--json") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline()
            server.kill()
            assert json.loads(process.stderr.readline())["error"]["code"] in ("KQ302", "KQ501")
            server.start()
            eventually(process.stdout.readline, "it is seen again")
