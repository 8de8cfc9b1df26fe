"""`kq demo`: the promises, kept in front of you, on an SQLite file in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kq.app import App
from kq.cli.demo_jobs import app, fail_twice, find_documents, hang, lose_executor, read_document
from kq.cli.frame import flags, verb
from kq.control import Control
from kq.errors import KqError
from kq.handles.handle import Handle
from kq.values.job import ENDED, State
from kq.worker import Worker

TERM = "import"
WORKERS = 2
#: Seconds after which the demo gives up: it takes about four.
PATIENCE = 60.0
ROUND = 0.1


@dataclass(slots=True)
class Line:
    """One of the jobs that are told apart on the screen."""

    handle: Handle[Any]
    name: str
    about: str
    state: State = State.READY
    note: str = ""


@verb("demo")
@click.option("--documents", type=click.IntRange(1, 2000), default=150, show_default=True, help="How many to read.")
def command(documents: int) -> int:
    """Run real jobs on real workers, with things going wrong, and see what becomes of them.

    Reads this Python's own modules in parallel jobs on two workers. One job fails and is retried, one hangs and is
    timed out, one loses its executor to kill -9. Takes a few seconds and leaves nothing behind.
    """
    console = Console(no_color=flags().no_color or None, highlight=False)
    with tempfile.TemporaryDirectory(prefix="kq-demo-") as folder:
        app.configure(url=flags().url or f"sqlite:///{folder}/kq.db")
        console.print(f"[bold]kq demo[/]  {app.address.redacted}  {WORKERS} workers\n")
        with workers(app), Control(app) as control:
            show = Show(control, folder, documents)
            with Live(show.picture(), console=console, refresh_per_second=10, transient=False) as live:
                while not show.over:
                    time.sleep(ROUND)
                    show.look()
                    live.update(show.picture())
            code = show.conclude(console)
        app.close()
    return code


@contextlib.contextmanager
def workers(demo: App) -> Iterator[None]:
    """Two workers: programs of their own where they can share the broker, else in this one."""
    if not demo.broker.traits.shared:
        with Worker(demo, concurrency=WORKERS):
            yield
        return
    line = [sys.executable, "-m", "kq", "-A", "kq.cli.demo_jobs:app", "--url", demo.address.url, "worker", "-c", "2"]
    running = [subprocess.Popen(line, stderr=subprocess.DEVNULL) for _ in range(WORKERS)]
    try:
        yield
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait()


class Show:
    """Submits the demo's jobs and follows them."""

    def __init__(self, control: Control, folder: str, documents: int) -> None:
        self._control = control
        self._began = time.monotonic()
        self.lines = [
            Line(fail_twice.submit(folder), "fail_twice", "fails twice, then passes"),
            Line(hang.submit(), "hang", "sleeps; timeout 1 s"),
            Line(lose_executor.submit(folder), "lose_executor", "its process is killed -9"),
        ]
        found = find_documents.submit(sysconfig.get_path("stdlib"), documents).result(timeout=PATIENCE)
        self.reading = app.submit_many(read_document.job(path, TERM) for path in found)
        self.read: list[tuple[int, int]] = []
        self._waiting = list(self.reading)

    @property
    def over(self) -> bool:
        late = time.monotonic() - self._began > PATIENCE
        return late or (not self._waiting and all(line.state in {*ENDED, State.BURIED} for line in self.lines))

    def look(self) -> None:
        """See how far the jobs are."""
        while self._waiting:
            try:
                words, count = self._waiting[0].result(timeout=0.01)
            except KqError:
                break
            self.read.append((words, count))
            self._waiting.pop(0)
        for line in self.lines:
            job = self._control.job(line.handle.id)
            if job is None or line.state in ENDED:
                continue
            line.state = job.state
            if job.history:
                line.note = f"attempt {len(job.history)}: {job.history[-1].error}"
            if job.state is State.COMPLETED:
                line.note = str(job.result)
            elif job.error:
                line.note = job.error

    def picture(self) -> Group:
        """The screen."""
        done, total = len(self.read), len(self.reading)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(f"documents read {done}/{total}", ProgressBar(total=max(1, total), completed=done, width=40))
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
        for heading, width in (("JOB", 13), ("WHAT IT DOES", 24), ("STATE", 9)):
            table.add_column(heading, min_width=width)
        table.add_column("WHAT KQ SAW", no_wrap=True, overflow="ellipsis", ratio=1)
        for line in self.lines:
            table.add_row(line.name, line.about, Text(line.state, style=_color(line.state)), line.note)
        return Group(bar, Text(), table, Text())

    def conclude(self, console: Console) -> int:
        """Say what was proven; 0 when all of it was."""
        took = time.monotonic() - self._began
        words = sum(each[0] for each in self.read)
        fails, hangs, loses = self.lines
        proven = [
            (not self._waiting, f"{len(self.read)} documents with {words:,} words were read in parallel jobs"),
            (fails.state is State.COMPLETED, "a job that failed was retried by its policy, and passed"),
            (hangs.state is State.BURIED, "a job that hung was interrupted at its timeout, and kept for a human"),
            (loses.state is State.COMPLETED, "a job whose process was killed -9 ran again at once"),
        ]
        for held, fact in proven:
            console.print(Text("  ✓ " if held else "  ✗ ", style="green" if held else "red") + Text(fact))
        console.print(f"\n  {took:.1f} s, nothing left behind.\n")
        kq = "kq" if shutil.which("kq") else os.path.abspath(sys.argv[0])
        console.print(f"Next:  [bold]{kq} init shop[/]", soft_wrap=True)
        console.print("  writes a first application into a folder of that name, and says how to run it.")
        return 0 if all(held for held, _ in proven) else 1


def _color(state: State) -> str:
    return {
        State.COMPLETED: "green",
        State.BURIED: "yellow",
        State.RETRYING: "magenta",
        State.RUNNING: "cyan",
    }.get(state, "default")
