"""The command line's frame: options on either side, quick answers, errors in two lines, exit codes."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys

import pytest

import kq
from kq.cli.frame import VERBS
from tests.cli.conftest import ROOT, Place

#: What costs more than all else together: brokers, drivers, the state store, screens, parsers.
HEAVY = ("asyncio", "kombu", "kq.app", "kq.control", "kq_transports", "msgspec", "redis", "rich", "sqlite3", "yaml")
#: What a submit has no use for where the broker is an SQLite file and there is no config file: what looks, works or
#: tells, other brokers and their drivers, screens, loops, parsers. Kombu itself imports yaml.
NOT_FOR_SUBMIT = (
    *("asyncio", "http", "jinja2", "redis", "rich", "smtplib", "starlette", "tomllib"),
    *("kq.alert", "kq.cli.looking", "kq.cli.monitor", "kq.control", "kq.handles.trouble", "kq.mail", "kq.smtp"),
    *("kq.state.memory", "kq.state.redis", "kq.values.metrics", "kq.values.snapshot", "kq.values.tally"),
    *("kq.web", "kq.worker"),
    *("kq_transports.amqp", "kq_transports.memory", "kq_transports.redis", "kq_transports.redislink"),
)
BARE = "-c", "import sys; print(*sys.modules)"


def modules_after(place: Place, *arguments: str) -> set[str]:
    """Which modules `kq arguments` imports."""
    code = f"""
import atexit, sys
atexit.register(lambda: print("loaded:", *sys.modules))
sys.argv[:] = ["kq", *{list(arguments)!r}]
from kq.cli import main
main()
"""
    return set(printed(place, "-c", code).partition("loaded:")[2].split())


def printed(place: Place, *arguments: str) -> str:
    """What a Python program prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=place.folder,
        env=place.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout


def cpu_of(command: list[str], place: Place) -> float:
    """The least CPU seconds that command took in five runs."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, env=place.environment(), cwd=ROOT, capture_output=True, check=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return min(once() for _ in range(5))


def test_version_is_told_without_importing_anything_heavy(place: Place) -> None:
    said = place.kq("--version")
    assert (said.code, said.out, said.err) == (0, f"kq {kq.__version__}\n", "")
    bare = set(printed(place, *BARE).split())
    assert len(modules_after(place, "--version") - bare) <= 12


def test_version_costs_at_most_four_times_a_bare_interpreter(place: Place) -> None:
    assert cpu_of(place.command("--version"), place) <= 4 * cpu_of([sys.executable, "-c", "pass"], place)


@pytest.mark.parametrize("arguments", [("--help",), ("submit", "--help"), ("submit", "x", "--priority", "10")])
def test_a_line_is_understood_with_a_few_imports_and_none_that_is_heavy(
    place: Place, arguments: tuple[str, ...]
) -> None:
    imported = modules_after(place, *arguments)
    assert not set(HEAVY) & imported
    # Counted, as imports are what starting costs, and time depends on who else runs: click has the most of them.
    assert len(imported) <= 4.5 * len(printed(place, *BARE).split())


def test_submit_imports_nothing_but_what_a_submit_needs(place: Place) -> None:
    imported = modules_after(place, "submit", "x", "--queue", "mail", "--url", "sqlite:///kq.db")
    assert "kq_transports.sqlite.engine" in imported
    assert not set(NOT_FOR_SUBMIT) & imported


def test_help_names_every_verb_and_each_verb_has_help_of_its_own(place: Place) -> None:
    said = place.kq("--help")
    assert all(f"  {verb} " in said.out for verb in VERBS)
    for verb in VERBS:
        assert f"Usage: kq {verb}" in place.here(verb, "--help").out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--url", "redos://h", "queues", "ls"),
        ("queues", "--url", "redos://h", "ls"),
        ("queues", "ls", "--url", "redos://h"),
        ("queues", "--url", "redos://h"),
    ],
)
def test_global_options_may_stand_before_or_after_the_verb(place: Place, arguments: tuple[str, ...]) -> None:
    said = place.here(*arguments)
    assert said.code == 78
    assert said.err.splitlines() == [
        "KQ101 broker URL 'redos://h': no broker has the scheme redos://",
        "  Did you mean redis://? For example redis://localhost:6379/0",
    ]


@pytest.mark.parametrize("arguments", [("--json", "queues", "ls"), ("queues", "ls", "--json")])
def test_with_json_an_error_is_json_on_stderr(place: Place, arguments: tuple[str, ...]) -> None:
    said = place.kq(*arguments, KQ_URL="redos://:hush@h")
    assert (said.code, said.out) == (78, "")
    error = json.loads(said.err)["error"]
    assert error["code"] == "KQ101"
    assert "Did you mean redis://" in error["fix"]
    assert "hush" not in said.err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("wroker",), "there is no verb 'wroker'. Did you mean 'worker'?"),
        (("zzz",), "There are demo, init, doctor"),
        (("jobs", "shwo", "1"), "Did you mean 'show'?"),
        (("jobs", "ls", "--sate", "buried"), "No such option"),
        (("jobs", "show"), "Missing argument"),
        (("jobs", "ls", "--state", "lost"), "'lost' is not one of"),
        (("submit", "x", "--delay", "soon"), "'soon' is no duration; write 30"),
        (("submit", "x", "--priority", "10"), "10 is not in the range 0<=x<=9"),
        (("submit", "x", "--kwargs", "{"), "is no JSON"),
        (("submit", "x", "--kwargs", "[1]"), "is no JSON object"),
    ],
)
def test_wrong_usage_ends_with_2_and_a_hint(place: Place, arguments: tuple[str, ...], hint: str) -> None:
    said = place.here(*arguments)
    assert said.code == 2
    assert hint in said.err
    assert "Try: kq" in said.err
    assert "Traceback" not in said.err


def test_without_a_verb_help_is_told_and_the_exit_code_is_that_of_wrong_usage(place: Place) -> None:
    said = place.kq()
    assert (said.code, said.out) == (2, "")
    assert "Usage: kq" in said.err


def test_an_unknown_key_in_the_config_file_is_refused_with_its_line(place: Place) -> None:
    place.write("kq.yaml", "url: memory://x\nwroker: {}\n")
    said = place.kq("queues")
    assert (said.code, said.err) == (78, "KQ101 wroker in kq.yaml:2 is no setting\n  Did you mean worker?\n")


def test_a_bug_is_called_one_and_verbose_shows_where(place: Place) -> None:
    place.write(
        "jobs.py", "import kq\n\nclass Odd(kq.App):\n    def configure(self, **given):\n        1 / 0\n\napp = Odd()\n"
    )
    said = place.kq("-A", "jobs:app", "queues")
    assert said.code == 70
    assert said.err.startswith("KQ001 this is a bug in kq: ZeroDivisionError")
    assert "Traceback" not in said.err
    assert "Traceback" in place.kq("-A", "jobs:app", "queues", "-v").err


@pytest.mark.parametrize(("environment", "colored"), [({}, False), ({"FORCE_COLOR": "1"}, True)])
def test_colours_are_for_terminals_and_for_those_who_ask(
    place: Place, environment: dict[str, str], colored: bool
) -> None:
    assert ("\x1b[" in place.kq("queues", KQ_URL="x", **environment).err) == colored


@pytest.mark.parametrize("refusal", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_who_refuses_colours_gets_none(place: Place, refusal: dict[str, str]) -> None:
    assert "\x1b[" not in place.kq("queues", KQ_URL="x", FORCE_COLOR="1", **refusal).err
    assert "\x1b[" not in place.kq("queues", "--no-color", KQ_URL="x", FORCE_COLOR="1").err


@pytest.mark.parametrize(("shell", "word"), [("bash", "1"), ("zsh", "1"), ("fish", "wo")])
def test_the_shell_can_complete_verbs(place: Place, shell: str, word: str) -> None:
    script = place.kq(_KQ_COMPLETE=f"{shell}_source")
    assert "_KQ_COMPLETE" in script.out
    completed = place.kq(_KQ_COMPLETE=f"{shell}_complete", COMP_WORDS="kq wo", COMP_CWORD=word)
    assert {"worker", "workers"} <= set(re.split(r"[,\t\n]", completed.out))


@pytest.mark.parametrize(
    "arguments",
    [
        ("queues", "--url", "redis://:hush\udcff@h"),
        ("queues", "--url=redis://:hush\udcff@h"),
        ("jobs", "why", "hush\udcff", "--json"),
        ("submit", "hush\udcff"),
        ("queues", "pause", "q", "--reason", "hush\udcff"),
        ("init", "hush\udcff"),
    ],
)
def test_an_argument_that_is_not_utf8_is_wrong_usage(place: Place, arguments: tuple[str, ...]) -> None:
    said = place.here(*arguments)
    assert said.code == 2
    assert "is not UTF-8" in said.err
    assert "hush" not in said.err
    assert len(said.err.splitlines()) <= 2


def test_a_folder_and_a_user_may_have_names_that_are_not_utf8(place: Place) -> None:
    odd = Place(place.folder / "od\udcffd")
    odd.folder.mkdir()
    odd.write("jobs.py", "import kq\napp = kq.App('x')\n@app.job\ndef add(a: int) -> int:\n    return a\n")
    said = odd.kq("submit", "-A", "jobs", "add", "1", USER="us\udcffr", LOGNAME="us\udcffr")
    assert (said.code, said.err) == (0, "")
    said = odd.kq("queues", "pause", "default", USER="us\udcffr", LOGNAME="us\udcffr")
    assert (said.code, said.err) == (0, "")
    assert [act["by"].partition("@")[0] for act in odd.kq("jobs", "audit", "--json").json] == [r"us\udcffr"]
    odd.write("kq.yaml", "url: sqlite:///kq.db\n")
    said = odd.kq("queues")
    assert said.code == 78
    assert "KQ101 the path" in said.err
    assert "is not UTF-8" in said.err
