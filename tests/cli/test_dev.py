"""`kq dev` and `kq worker --reload`: new code as it is saved, and a clean end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

from kq.cli.changes import changes, counts, looked
from kq.conformance.contract.waiting import eventually
from tests.cli.conftest import READY, Place

JOBS = """
import time
import kq

app = kq.App("shop")


@app.job
def answer() -> int:
    return {value}


@app.job
def sleep(seconds: float) -> None:
    time.sleep(seconds)
"""


@pytest.fixture
def shop(place: Place) -> Place:
    place.write("jobs.py", JOBS.format(value=1))
    place.write(
        "kq.yaml",
        "url: sqlite:///kq.db\napp: jobs:app\nworker: {pool: thread, concurrency: 1}\nweb: {listen: 127.0.0.1:0}\n",
    )
    return place


class Running:
    """A program that talks on its error output."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""

    def until(self, text: str) -> str:
        """Read until it says text; the line in which it does."""
        assert self.process.stderr is not None
        while text not in (line := self.process.stderr.readline()):
            assert line, self.said
            self.said += line
        return line

    def ends(self) -> int:
        """Its exit code; all that it still says is read."""
        assert self.process.stderr is not None
        self.said += self.process.stderr.read()
        return self.process.wait(30)


@contextmanager
def running(shop: Place, *arguments: str, **environment: str) -> Iterator[Running]:
    """`kq arguments`, killed afterwards if it still runs."""
    with subprocess.Popen(
        shop.command(*arguments),
        cwd=shop.folder,
        env=shop.environment(**environment),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield Running(process)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(params=["told by the system", "found by looking"])
def environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """With watchfiles, and as if it were not installed."""
    if request.param == "told by the system":
        return {}
    hidden = tmp_path_factory.mktemp("hidden")
    (hidden / "watchfiles.py").write_text("raise ImportError\n")
    return {"PYTHONPATH": os.pathsep.join([str(hidden), Place.environment()["PYTHONPATH"]])}


def test_new_code_runs_as_soon_as_it_is_saved(shop: Place, environment: dict[str, str]) -> None:
    with running(shop, "worker", "--reload", **environment) as worker:
        worker.until(READY)
        assert shop.kq("submit", "answer", "--wait").out == "1\n"
        shop.write("jobs.py", JOBS.format(value=2))
        worker.until("changed: jobs.py")
        worker.until(READY)
        assert shop.kq("submit", "answer", "--wait").out == "2\n"
        os.killpg(worker.process.pid, signal.SIGINT)  # as a terminal does
        assert worker.ends() == 0


def test_code_that_does_not_import_is_told_and_the_old_goes_on(shop: Place) -> None:
    with running(shop, "dev") as dev:
        dev.until(READY)
        shop.write("jobs.py", "1 / 0\n")
        dev.until("the worker stays with the code that it has")
        shop.write("jobs.py", JOBS.format(value=3))
        dev.until(READY)
        assert shop.kq("submit", "answer", "--wait").out == "3\n"


def test_what_could_not_start_is_started_when_it_was_mended(shop: Place) -> None:
    shop.write("dev.py", "1 / 0\n")
    with running(shop, "dev", "-A", "dev") as dev:
        dev.until("can't be imported: ZeroDivisionError")
        dev.until("started again when something has changed")
        shop.write("dev.py", JOBS.format(value=4))
        dev.until(READY)
        os.killpg(dev.process.pid, signal.SIGINT)
        assert dev.ends() == 0


def test_the_page_runs_beside_the_worker(shop: Place) -> None:
    with running(shop, "dev") as dev:
        address = dev.until("ready: http://127.0.0.1:").split()[-1]
        browser = build_opener(HTTPCookieProcessor())
        link = shop.kq("web", "--link").out.strip().rpartition("/")[2]
        browser.open(f"{address}{link}", timeout=20).close()

        def seen(path: str) -> Any:
            with browser.open(f"{address}api/v1/{path}", timeout=20) as answer:
                return json.load(answer)

        (worker,) = eventually(lambda: seen("workers"), "the page shows the worker")
        assert worker["health"] == "alive"
        id = shop.kq("submit", "answer", "--wait", "--json").json["id"]
        assert seen(f"jobs/{id}")["result"] == 1
        os.killpg(dev.process.pid, signal.SIGINT)
        assert dev.ends() == 0
    with running(shop, "dev", PYTHONPATH=hiding(shop, "starlette")) as dev:
        dev.until("the web page needs  pip install 'kq-jobs[web]'")
        dev.until(READY)


def hiding(shop: Place, module: str) -> str:
    """A Python path on which a module is not to be found."""
    shop.write(
        "hidden/sitecustomize.py",
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            raise ModuleNotFoundError(name=name)\n"
        "sys.meta_path.insert(0, Hide())\n",
    )
    return os.pathsep.join([str(shop.folder / "hidden"), Place.environment()["PYTHONPATH"]])


def test_ctrl_c_once_lets_what_runs_finish(shop: Place) -> None:
    with running(shop, "dev") as dev:
        dev.until(READY)
        id = shop.kq("submit", "sleep", "1.5").out.strip()
        dev.until(f"jobs.sleep {id} (default, attempt 1) started")
        os.killpg(dev.process.pid, signal.SIGINT)
        assert dev.ends() == 0
    assert f"jobs.sleep {id} (default, attempt 1) completed" in dev.said


def test_ctrl_c_twice_ends_it_at_once_and_the_job_is_back(shop: Place) -> None:
    with running(shop, "dev") as dev:
        dev.until(READY)
        id = shop.kq("submit", "sleep", "60").out.strip()
        dev.until(f"{id} (default, attempt 1) started")
        os.killpg(dev.process.pid, signal.SIGINT)
        dev.until("told to end")
        os.killpg(dev.process.pid, signal.SIGINT)
        assert dev.ends() == 0
    (job,) = json.loads(shop.kq("jobs", "--json").out)
    assert (job["id"], job["state"]) == (id, "ready")


def test_it_needs_an_application(place: Place) -> None:
    said = place.kq("dev")
    assert (said.code, said.err.startswith("KQ102 no application is named")) == (78, True)


@pytest.mark.parametrize("look", [changes, looked])
def test_only_what_counts_is_a_change(tmp_path: Path, look: Callable[[Path, Path], Iterator[Set[Path]]]) -> None:
    config, code = tmp_path / "kq.yaml", tmp_path / "shop" / "jobs.py"
    paths = [tmp_path / ".venv" / "x.py", tmp_path / "notes.txt", code]
    for path in (*paths, config):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    enough = threading.Event()

    def write() -> None:
        while not enough.wait(0.05):
            for path in paths:
                path.write_text(path.read_text() + "#")

    writer = threading.Thread(target=write)
    writer.start()
    found = look(tmp_path, config)
    try:
        assert next(found) == {code}
    finally:
        enough.set()
        writer.join()


def test_the_config_file_counts_and_a_folder_of_the_same_name_elsewhere_does_not(tmp_path: Path) -> None:
    config = tmp_path / "kq.yaml"
    assert counts(config, tmp_path, config)
    assert counts(tmp_path / "a" / "b.py", tmp_path, config)
    for name in ("other.yaml", "a/.git/b.py", "venv/b.py", "a/__pycache__/b.py", "b.pyc"):
        assert not counts(tmp_path / name, tmp_path, config)
    assert not counts(Path("/elsewhere/b.py"), tmp_path, config)
