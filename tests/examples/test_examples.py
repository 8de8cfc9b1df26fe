"""Each example works as it stands, on each broker, and prints what its last lines say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from examples import report

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
#: Seconds that one example may take.
PATIENCE = 90

BROKERS = ["memory", "sqlite", "redis", "rabbitmq"]
#: As they stand they run on SQLite.
OTHERS = ["memory", "redis", "rabbitmq"]
#: Those that use the transports without kq, and the brokers they are for.
KOMBU = {"plain_kombu": BROKERS, "celery_app": ["sqlite", "redis", "rabbitmq"]}
KQ = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem not in KOMBU)


@pytest.fixture
def url_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """The URL of each broker, as people write it; a server is started when it is asked for."""

    def url(broker: str) -> str:
        match broker:
            case "memory":
                return "memory://examples"
            case "sqlite":
                return f"sqlite:///{tmp_path}/kq.db"
            case _:
                fixture: str = request.getfixturevalue({"redis": "redis_url", "rabbitmq": "rabbit_url"}[broker])
                return fixture

    return url


def run(name: str, folder: Path, *arguments: str, **environment: str) -> str:
    """What an example prints when it is run in folder."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("KQ_")}
    here = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "transports")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "XDG_STATE_HOME": str(folder / "state"),
    }
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments],
        cwd=folder,
        env={**plain, **here, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def text_of(name: str) -> str:
    return (EXAMPLES / f"{name}.py").read_text()


def promised(name: str) -> str:
    """The lines that an example says it prints, as a pattern in which … is any text."""
    lines = re.findall(r"^# prints: (.*)\n", text_of(name), re.MULTILINE)
    return "".join(".*".join(map(re.escape, line.split("…"))) + "\n" for line in lines)


@pytest.mark.parametrize("broker", OTHERS)
@pytest.mark.parametrize("name", KQ)
def test_an_example_prints_the_same_on_each_broker(
    name: str, broker: str, url_of: Callable[[str], str], tmp_path: Path
) -> None:
    printed = run(name, tmp_path, KQ_URL=url_of(broker))
    assert re.fullmatch(promised(name), printed), printed


@pytest.mark.parametrize("name", [*KQ, *KOMBU])
def test_an_example_works_as_it_stands(name: str, tmp_path: Path) -> None:
    printed = run(name, tmp_path)
    assert re.fullmatch(promised(name), printed), printed
    assert list(tmp_path.glob("*.db")), "the default is an SQLite file in the working directory"


@pytest.mark.parametrize("broker", KOMBU["plain_kombu"])
def test_plain_kombu_behaves_the_same_on_each_broker(broker: str, url_of: Callable[[str], str], tmp_path: Path) -> None:
    printed = run("plain_kombu", tmp_path, f"kq-{url_of(broker)}")
    assert re.fullmatch(promised("plain_kombu"), printed), printed


@pytest.mark.parametrize("broker", KOMBU["celery_app"])
def test_a_celery_worker_that_is_killed_in_the_middle_of_a_task_loses_nothing(
    broker: str, url_of: Callable[[str], str], tmp_path: Path
) -> None:
    printed = run("celery_app", tmp_path, CELERY_URL=f"kq-{url_of(broker)}")
    assert re.fullmatch(promised("celery_app"), printed), printed


@pytest.mark.parametrize("broker", BROKERS)
def test_the_report_on_a_folder_is_what_its_functions_say_without_any_broker(
    broker: str, url_of: Callable[[str], str], tmp_path: Path
) -> None:
    folder, terms = str(ROOT / "docs"), ["broker", "lease", "zebra"]
    expected = report.summarise([report.analyse(folder, name, terms) for name in report.search(folder)], terms)
    words = [word for term in terms for word in ("--term", term)]
    assert run("report", tmp_path, "--url", url_of(broker), "--folder", folder, *words) == expected + "\n"


def test_the_report_reads_what_it_can_and_names_the_rest(tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "good.txt").write_text("A lease is a lease.")
    (documents / "gone.txt").symlink_to("nowhere")
    printed = run("report", tmp_path, "--folder", str(documents), "--term", "lease").splitlines()
    assert printed[0] == "1 documents, 5 words"
    assert printed[1].split() == ["lease", "2", "most", "in", "good.txt", "(2)"]
    assert printed[2].startswith("  left out: gone.txt, FileNotFoundError")


@pytest.mark.parametrize("name", [*KQ, *KOMBU])
def test_an_example_opens_with_two_commands_and_ends_with_what_it_prints(name: str) -> None:
    docstring, _, rest = text_of(name).removeprefix('"""').partition('"""')
    commands = [line for line in docstring.splitlines() if line.startswith("    ")]
    assert len(commands) == 2
    assert all(f"python examples/{name}.py" in command for command in commands)
    assert commands[0] == f"    python examples/{name}.py"
    assert rest.splitlines()[-1].startswith("# prints: ")
