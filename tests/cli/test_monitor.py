"""`kq monitor` as people have it: the program at a terminal, with keys, on each broker."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import psutil
import pytest

from kq import App, Control
from kq.cli.monitor import has_unicode
from kq.conformance.contract.processes import cpu
from kq.conformance.contract.waiting import eventually
from kq.handles.standing import caller
from kq.values import snapshot
from tests.brokers import OnMemory, OnRabbit, OnRedis, OnSqlite
from tests.cli.conftest import Place, worker
from tests.cli.screen import Screen, at_a_screen, resize
from tests.conftest import available
from tests.servers import RedisServer
from tests.unit.scenes import SHOT

#: In one process, as what is in memory is: submits two jobs, buries one, lets people look, and tells what they did.
IN_MEMORY = """
import json, sys
import kq
from kq.cli import main

url = sys.argv[1]
app = kq.App("shop", url)
with kq.Control(app) as control:
    app.submit("work", 1)
    control.bury(app.submit("work", 2).id, "it looks odd")
    sys.argv[1:] = ["monitor", "--url", url]
    try:
        main()
    finally:
        (queue,) = control.queues()
        acts = [[act.by, act.act] for act in control.audit()]
        print("AFTER" + json.dumps([queue.paused is not None, queue.ready, queue.buried, acts]) + "END", flush=True)
"""


@contextmanager
def monitor(place: Place, *arguments: str, **environment: str) -> Iterator[Screen]:
    """`kq monitor` in a folder."""
    command = place.command("monitor", *arguments)
    with at_a_screen(command, place.folder, place.environment(**environment)) as screen:
        yield screen


def steer(screen: Screen) -> None:
    """Pause the queue, kick what lies buried, and quit."""
    screen.see("● live", "default", "ready 1", "buried 1")
    screen.press("p")
    screen.see("Pause queue default?", "kq queues pause default")
    screen.press("y")
    screen.see("‖ paused", "Paused queue default")
    screen.press("K")
    screen.see("kq jobs kick --queue default --yes")
    screen.press("y")
    screen.see("kicked 1", "ready 2", "buried 0")
    screen.press("q")
    assert screen.end() == 0
    assert screen.is_as_it_was


def clock(seen: str) -> int:
    """The seconds of the clock on the screen."""
    found = re.search(r"(\d\d):(\d\d):(\d\d) [+-]\d{4}", seen)
    return sum(int(part) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True)) if found else 0


def idles(screen: Screen) -> None:
    """Raise when a screen that nobody touches takes 2 % of a core or more."""
    begun = clock(screen.see("● live"))
    begun = clock(screen.wait(lambda seen: clock(seen) != begun, "it looks again"))
    process = psutil.Process(screen.process.pid)
    used = cpu([process])
    end = clock(screen.wait(lambda seen: (clock(seen) - begun) % 86_400 >= 6, "it has looked for six seconds"))
    assert cpu([process]) - used < 0.02 * ((end - begun) % 86_400)


class AnyBroker:
    def test_a_screen_that_nobody_touches_takes_less_than_2_percent_of_a_core(
        self, place: Place, broker_url: str, state_url: str | None
    ) -> None:
        app = App("shop", url=broker_url, state=state_url)
        app.submit("work", 1)
        app.close()
        with monitor(place, "--url", broker_url, KQ_STATE=state_url or "") as screen:
            idles(screen)

    def test_a_queue_is_paused_and_a_buried_job_kicked_with_keys(
        self, place: Place, broker_url: str, state_url: str | None
    ) -> None:
        app = App("shop", url=broker_url, state=state_url)
        with Control(app) as control:
            app.submit("work", 1)
            control.bury(app.submit("work", 2).id, "it looks odd")
            with monitor(place, "--url", broker_url, KQ_STATE=state_url or "") as screen:
                steer(screen)
            (queue,) = [each for each in control.queues() if each.name == "default"]
            assert (queue.paused is not None, queue.ready, queue.buried) == (True, 2, 0)
            assert [(act.by, act.act) for act in control.audit()][:2] == [(caller(), "kicked"), (caller(), "paused")]
        app.close()


class TestOnSqlite(AnyBroker, OnSqlite):
    pass


class TestOnRedis(AnyBroker, OnRedis):
    pass


class TestOnRabbit(AnyBroker, OnRabbit):
    pass


class TestOnMemory(OnMemory):
    def test_a_screen_that_nobody_touches_takes_less_than_2_percent_of_a_core(
        self, place: Place, broker_url: str
    ) -> None:
        command = [sys.executable, "-c", IN_MEMORY, broker_url]
        with at_a_screen(command, place.folder, place.environment()) as screen:
            idles(screen)

    def test_a_queue_is_paused_and_a_buried_job_kicked_with_keys(self, place: Place, broker_url: str) -> None:
        command = [sys.executable, "-c", IN_MEMORY, broker_url]
        with at_a_screen(command, place.folder, place.environment()) as screen:
            steer(screen)
            told = screen.raw.decode().partition("AFTER")[2].partition("END")[0]
        paused, ready, buried, acts = json.loads(told)
        assert (paused, ready, buried) == (True, 2, 0)
        assert acts[:2] == [[caller(), "kicked"], [caller(), "paused"]]


@pytest.fixture
def shop(place: Place) -> Place:
    """A folder with a broker in which a job waits."""
    place.write("kq.yaml", "url: sqlite:///kq.db\n")
    app = App("shop", url=f"sqlite:///{place.folder}/kq.db")
    app.submit("work", 1)
    app.close()
    return place


def test_jobs_of_a_queue_are_buried_kicked_run_now_and_revoked(shop: Place) -> None:
    assert shop.kq("submit", "later", "--delay", "1h").code == 0
    with monitor(shop) as screen:
        screen.see("● live", "default")
        screen.press("\r")
        screen.see("▸ work", "later", "in 59m")
        screen.press("by")
        screen.wait(lambda seen: "1 buried" in seen and "0 ready" in seen, "it is buried")
        screen.press("/state:buried\r")
        screen.see("▸ work")
        screen.press("Kr" + "it may go on\ry")
        screen.see("kicked 1", "1 ready")
        screen.press("\x1b/later\r")
        screen.see("▸ later")
        screen.press("Ry")
        screen.see("2 ready", "0 delayed")
        screen.press("xy")
        screen.see("1 ready", "revoked ")
        screen.press("qq")
    with Control(App("shop", url=f"sqlite:///{shop.folder}/kq.db")) as control:
        acts = [(act.act, act.reason) for act in control.audit()]
    assert [act for act, _ in acts] == ["revoked", "edited", "kicked", "buried"]
    assert acts[2] == ("kicked", "it may go on")


def test_what_failed_last_is_opened_and_kicked_and_a_worker_retired(shop: Place) -> None:
    shop.write("jobs.py", "import kq\napp = kq.App('shop')\n@app.job\ndef work(n: int) -> None: raise ValueError(n)\n")
    shop.write("kq.yaml", "url: sqlite:///kq.db\napp: jobs:app\nlease: {length: 3s}\n")
    assert shop.kq("submit", "jobs.work", "7", "-A", "jobs:app").code == 0
    with worker(shop, "--pool", "thread", "-c", "1") as process, monitor(shop, "--every", "1s") as screen:
        screen.see("● live", "ValueError: 7")
        screen.press("3\r")
        screen.see("is buried", "jobs.work(7)", "jobs.py", "raise ValueError(n)")
        screen.press("K")
        screen.see("Kick jobs.work")
        screen.press("y")
        screen.see("kicked 1")
        screen.press("2D")
        screen.see("kq workers retire")
        screen.press("y")
        screen.see("Retired")
        assert process.wait(30) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_the_terminal_is_as_it_was_when_the_monitor_is_told_to_end(shop: Place, number: int, code: int) -> None:
    with monitor(shop) as screen:
        screen.see("● live")
        assert not screen.is_as_it_was
        screen.process.send_signal(number)
        assert screen.end() == code
        assert screen.is_as_it_was


def test_the_terminal_is_as_it_was_when_the_monitor_fails_and_the_reason_is_told(place: Place) -> None:
    shots = [msgspec.structs.replace(SHOT, at=SHOT.at + number) for number in (0, 999)]
    recorded = place.write("shots", "\n".join([*(snapshot.encode(shot).decode() for shot in shots), "nonsense"]))
    with monitor(place, "--replay", str(recorded), "--every", "1s") as screen:
        screen.see("replay 1/3")
        screen.press("\x1b[C")
        assert screen.end() == 65
        assert screen.is_as_it_was
        assert b"line 3 of" in screen.raw


def test_a_stopped_monitor_leaves_the_terminal_alone_and_goes_on_where_it_was(shop: Place) -> None:
    with monitor(shop) as screen:
        screen.see("● live")
        screen.process.send_signal(signal.SIGTSTP)
        assert os.WIFSTOPPED(os.waitpid(screen.process.pid, os.WUNTRACED)[1])
        assert screen.is_as_it_was
        screen.process.send_signal(signal.SIGCONT)
        screen.wait(lambda seen: not screen.is_as_it_was and "● live" in seen, "the screen again")
        screen.press("?")
        screen.see("help")
        screen.press("qq")
        assert screen.end() == 0


def test_the_screen_is_drawn_anew_when_its_size_changes(shop: Place) -> None:
    with monitor(shop) as screen:
        screen.see("● live", "workers", "failures")
        resize(screen.theirs, 60, 15)
        screen.process.send_signal(signal.SIGWINCH)
        seen = screen.wait(lambda seen: "failures" not in seen and "default" in seen, "queues only")
        assert {len(line) for line in seen.splitlines()} == {60}


def test_a_broker_that_goes_away_is_told_and_comes_back(place: Place) -> None:
    with available(RedisServer) as server:
        place.write("kq.yaml", f"url: {server.url}\nsubmit_timeout: 1s\n")
        assert place.kq("submit", "work", "1").code == 0
        with monitor(place, "--every", "1s") as screen:
            screen.see("● live", "ready 1")
            server.kill()
            screen.see("✗ broker lost", "KQ3")
            server.start()
            screen.see("● live", "ready 1")


def test_who_protects_his_broker_only_looks_unless_he_says_otherwise(shop: Place) -> None:
    shop.write("kq.yaml", "url: sqlite:///kq.db\nprotected: true\n")
    with monitor(shop) as screen:
        screen.see("● live", "READ-ONLY")
        screen.press("p")
        screen.see("this monitor only looks")
    with monitor(shop, "--no-read-only") as screen:
        assert "READ-ONLY" not in screen.see("● live")


def test_a_command_line_has_the_terminal_for_itself(shop: Place) -> None:
    with monitor(shop) as screen:
        screen.see("● live")
        screen.press(":queues why default\r")
        eventually(lambda: screen.seen() is not None and b"Enter goes back" in screen.raw, "the command has ended")
        assert termios.tcgetattr(screen.theirs) == screen.usual
        assert b"queue default: no live worker takes it" in screen.raw
        screen.press("\r")
        screen.wait(lambda seen: "● live" in seen and not screen.is_as_it_was, "the monitor again")


def test_a_job_is_edited_in_an_editor(shop: Place) -> None:
    shop.write("edit.sh", "#!/bin/sh\nsed -i 's/^    1$/    8/' \"$1\"\n").chmod(0o755)
    with monitor(shop, EDITOR=str(shop.folder / "edit.sh")) as screen:
        screen.see("● live", "default")
        screen.press("\r")
        screen.see("jobs 1", "work(1)")
        screen.press("ey")
        eventually(lambda: screen.seen() is not None and b"Enter goes back" in screen.raw, "the editor has ended")
        screen.press("\r")
        screen.see("work(8)")


def test_what_is_recorded_is_played_again(shop: Place) -> None:
    with monitor(shop, "--record", "shots", "--every", "1s") as screen:
        screen.see("● live", "ready 1")
        eventually(lambda: (shop.folder / "shots").read_bytes().count(b"\n") > 2, "three looks are written")
        screen.press("q")
        screen.end()
    lines = (shop.folder / "shots").read_bytes().splitlines()
    assert [snapshot.decode(line).totals.ready for line in lines] == [1] * len(lines)
    (shop.folder / "kq.db").unlink()
    with monitor(shop, "--replay", "shots") as screen:
        screen.see("replay ", "READ-ONLY", "ready 1")
        screen.press("f" + "\x1b[D" * len(lines))
        screen.see("replay 1/", "frozen")
        screen.press("\x1b[C")
        screen.see("replay 2/")
    once = shop.here("monitor", "--replay", str(shop.folder / "shots"), "--once", "--json")
    assert json.loads(once.out)["totals"]["ready"] == 1


def test_no_colours_where_none_are_wanted(shop: Place) -> None:
    with monitor(shop, NO_COLOR="1") as screen:
        screen.see("● live", "default")
        assert not [code for code in range(30, 48) if b"\x1b[%dm" % code in screen.raw]


@pytest.mark.parametrize(
    ("environ", "known"),
    [
        ({}, True),
        ({"LANG": "en_US.UTF-8"}, True),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "C"}, False),
        ({"LANG": "sv_SE.ISO-8859-1"}, False),
        ({"LC_CTYPE": "C.utf8"}, True),
    ],
)
def test_only_ascii_where_the_locale_says_so(environ: dict[str, str], known: bool) -> None:
    assert has_unicode(environ) is known


def test_with_a_condition_that_is_met_the_screen_says_so(shop: Place) -> None:
    with monitor(shop, "--fail-if", "unserved>0") as screen:
        screen.see("it is so: unserved>0")
