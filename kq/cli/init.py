"""`kq init`: a first application that runs as it stands. It asks nothing."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from kq.cli.failing import Refused
from kq.cli.frame import flags, verb
from kq.cli.show import print_json
from kq.url import DEFAULT, redact

JOBS = '''"""The jobs of this application. In two terminals:

    kq worker
    kq submit greet world --wait
"""

from __future__ import annotations

import urllib.request

import kq

app = kq.App("{name}")


@app.job
def greet(name: str) -> str:
    """Return a greeting."""
    return f"hello {{name}}"


@app.job(timeout=30, retry_policy=kq.Exponential(first=1, longest=60, retries=5))
def size_of(url: str) -> int:
    """How many bytes lie at url. Tried again, later and later, while the network fails."""
    with urllib.request.urlopen(url, timeout=10) as response:
        return len(response.read())
'''

CONFIG = """# The broker: sqlite:///file, redis://host:6379/0, amqp://user:password@host:5672// or memory://name.
# Change this line and nothing else to move to another one.
url: {url}
app: jobs:app
worker: {{pool: process, grace: 30s}}
results: {{keep: 1h}}
"""

TEST = '''"""Run with: python -m pytest    (pip install pytest)"""

from __future__ import annotations

import pytest

from jobs import app, greet


@pytest.fixture(autouse=True)
def broker():
    """A broker in memory, so that a test leaves nothing behind."""
    app.configure(url="memory://test")
    yield
    app.close()


def test_a_job_is_an_ordinary_function():
    assert greet("world") == "hello world"


def test_a_submitted_job_waits_for_a_worker():
    handle = greet.submit("world")
    assert handle.state() == "ready"


def test_wrong_arguments_fail_where_the_job_is_submitted():
    with pytest.raises(TypeError):
        greet.submit(nam="world")
'''


@verb("init")
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
def command(folder: Path) -> None:
    """Write a first application into FOLDER (here): jobs.py, kq.yaml and tests/test_jobs.py.

    Nothing that exists is overwritten. The broker is an SQLite file unless --url names another. When that has a
    password, kq.yaml is for you alone to read.
    """
    url = flags().url or DEFAULT
    name = folder.resolve().name or "app"
    files = {
        "jobs.py": JOBS.format(name=name.replace('"', "")),
        "kq.yaml": CONFIG.format(url=url),
        "tests/test_jobs.py": TEST,
    }
    there = [each for each in files if (folder / each).exists()]
    if there:
        raise Refused(
            f"{folder.resolve()} has {', '.join(there)} already; nothing was written", fix="Name another folder."
        )
    for each, text in files.items():
        path = folder / each
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600 if each == "kq.yaml" and redact(url) != url else 0o666)
        path.write_text(text, encoding="utf-8")
    if flags().json:
        print_json({"folder": str(folder.resolve()), "files": list(files)})
        return
    click.echo(f"Wrote {', '.join(files)} in {folder.resolve()}.")
    steps = ["kq worker", "kq submit greet world --wait    (in another terminal)"]
    for step in [f"cd {shlex.quote(str(folder))}", *steps] if folder != Path(".") else steps:
        click.echo(f"  {step}")
