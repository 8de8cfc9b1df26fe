"""The command as people run it: a process of its own, in a folder of its own."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from kq.cli.frame import run

ROOT = Path(__file__).parents[2]
#: Seconds that one command may take.
PATIENCE = 60
#: What a worker logs when it has imported its application.
READY = "ready: app "


def heed_ctrl_c() -> None:
    """For a new process: a shell that runs the tests in its background lets them, and all below them, ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Place:
    """A folder to run commands in."""

    folder: Path

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def kq(self, *arguments: str, stdin: str = "", **environment: str) -> Said:
        """Run `kq arguments` here, without a terminal."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(**environment),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def here(self, *arguments: str) -> Said:
        """The same in this process, which takes a tenth of the time. For verbs that import no application."""
        out, err = io.StringIO(), io.StringIO()
        plain = {name: value for name, value in os.environ.items() if not name.startswith("KQ_")}
        alone = mock.patch.dict(os.environ, plain, clear=True)
        with alone, chdir(self.folder), redirect_stdout(out), redirect_stderr(err):
            code = run(list(arguments))
        return Said(code, out.getvalue(), err.getvalue())

    def look(self, *arguments: str) -> Any:
        """What `kq arguments --json` says of kq.db here, for who looks again and again: no process for each look."""
        said = self.here(*arguments, "--json", "--url", f"sqlite:///{self.folder}/kq.db")
        assert said.code == 0, said.err
        return said.json

    @contextmanager
    def watching(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """`kq arguments` while it looks again and again; ended afterwards."""
        with subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_ctrl_c,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @staticmethod
    def command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "kq", *arguments]

    @staticmethod
    def environment(**more: str) -> dict[str, str]:
        """This process' environment without any setting of kq, and more."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith("KQ_")}
        paths = os.pathsep.join([str(ROOT), str(ROOT / "transports")])
        return {**plain, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", **more}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def shop(place: Place, request: pytest.FixtureRequest) -> Place:
    """A folder with the application of the test's module, JOBS, on an SQLite file, which is not there yet."""
    place.write("jobs.py", request.module.JOBS)
    place.write("kq.yaml", "url: sqlite:///kq.db\napp: jobs:app\n")
    return place


def submitted(shop: Place, *arguments: str) -> str:
    """The id of a new job."""
    return shop.kq("submit", *arguments).out.strip()


@contextmanager
def worker(
    shop: Place, *arguments: str, count: int = 1, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """`kq worker` in shop, with count supervisors that are ready; told to end afterwards, and expected to end well."""
    command = shop.command("worker", "--grace", "5s", *arguments)
    process = subprocess.Popen(
        command,
        cwd=shop.folder,
        env=shop.environment(**(environment or {})),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said: list[str] = []
    with process.stderr:
        try:
            while sum(READY in line for line in said) < count:
                line = process.stderr.readline()
                assert line, "".join(said)
                said.append(line)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            said += process.stderr.readlines()
            assert process.wait(30) == 0, "".join(said)


def at_a_terminal(shop: Place, answer: str, *arguments: str) -> Said:
    """A command whose input is a terminal."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer.encode())
        done = subprocess.run(
            shop.command(*arguments),
            cwd=shop.folder,
            env=shop.environment(),
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    return Said(done.returncode, done.stdout, done.stderr)
