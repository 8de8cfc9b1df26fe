"""`python -m benchmarks.peers [--only celery] [--write]`: kq beside other job frameworks, on a private Redis.

The newest release of each is installed into an environment of its own that lies in a temporary folder, or in
--venv FOLDER to be used again. One that cannot be installed or does not run is said to be so. Medians of --runs runs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from tests.servers import RedisServer

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- peers -->", "<!-- end of peers -->"
#: Each peer, and the packages that it needs.
PEERS = {
    "kq": [str(ROOT)],
    "celery": ["celery", "redis", "packaging"],  # which Kombu 5.7 imports without asking for it
    "dramatiq": ["dramatiq", "redis"],
    "taskiq": ["taskiq", "taskiq-redis"],
    "rq": ["rq"],
    "huey": ["huey", "redis"],
}
#: Seconds that one run of one peer may take.
PATIENCE = 240
COLUMNS = [
    ("submit, CPU µs", "submit", "{:.0f}"),
    ("drain, CPU µs a job", "drain", "{:.0f}"),
    ("drain, jobs/s", "rate", "{:,.0f}"),
    ("start p50, ms", "p50", "{:.2f}"),
    ("start p99, ms", "p99", "{:.1f}"),
    ("bytes a waiting job", "bytes", "{:.0f}"),
]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", choices=list(PEERS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--venv", type=Path, help="where the environment is, or is to be")
    parser.add_argument("--write", action="store_true", help=f"renew the table in {PAGE.name}")
    wish = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kq-peers-") as folder:
        python = made(wish.venv or Path(folder) / "venv")
        rows = [row(name, python, Path(folder), wish.runs) for name in wish.only or PEERS]
    head = ["", "version", "at least once", *(title for title, _, _ in COLUMNS), "settings"]
    text = "\n".join(["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *rows])
    print(text)
    if wish.write:
        write(text, wish.runs)


def made(venv: Path) -> Path:
    """The Python of an environment of its own."""
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--upgrade", "pip", "psutil"], check=True)
    return python


def row(name: str, python: Path, folder: Path, runs: int) -> str:
    """One peer's line of the table."""
    print(f"  {name}", file=sys.stderr)
    installed = pip(python, "install", "--upgrade", *PEERS[name])
    if installed.returncode:
        return f"| {name} | could not be installed: {last_line(installed)} |"
    figures = []
    for number in range(runs):
        done = drive(name, python, folder / f"{name}{number}")
        if done.returncode:
            return f"| {name} | {version(python, name)} | does not run: {last_line(done)} |"
        figures.append(json.loads(done.stdout.splitlines()[-1]))
    medians = [form.format(statistics.median(each[key] for each in figures)) for _, key, form in COLUMNS]
    told = figures[0]
    return "| " + " | ".join([name, version(python, name), told["at_least_once"], *medians, told["settings"]]) + " |"


def drive(name: str, python: Path, marks: Path) -> subprocess.CompletedProcess[str]:
    """Measure one peer on a Redis of its own."""
    with RedisServer() as server:
        environment = {**os.environ, "PEER_URL": server.url, "PEER_MARKS": str(marks), "PYTHONPATH": str(ROOT)}
        command = [str(python), "-m", "benchmarks.peers.drive", f"with_{name}"]
        try:
            return subprocess.run(
                command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 1, "", f"not done within {PATIENCE} s")


def version(python: Path, name: str) -> str:
    package = "kq-jobs" if name == "kq" else name
    shown = pip(python, "show", package).stdout
    return next((line.split()[1] for line in shown.splitlines() if line.startswith("Version:")), "?")


def pip(python: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-m", "pip", *words], capture_output=True, text=True, check=False)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stderr.strip().splitlines()
    return lines[-1][:200] if lines else f"exit code {done.returncode}"


def write(text: str, runs: int) -> None:
    """Put the table into the page, with what it was measured on."""
    machine = f"{platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}"
    page = PAGE.read_text()
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    about = f"{datetime.date.today()}; {machine}; medians of {runs} runs."
    PAGE.write_text(f"{before}{BEGIN}\n\n{about}\n\n{text}\n\n{END}{after}")


if __name__ == "__main__":
    main()
