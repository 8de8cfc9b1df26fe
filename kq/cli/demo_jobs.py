"""The jobs of `kq demo`: real reading of real documents, and three that have bad luck."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import kq

app = kq.App("demo")


@app.job(timeout=30)
def find_documents(folder: str, limit: int) -> list[str]:
    """Documents in folder, the first so many by name."""
    return sorted(str(path) for path in Path(folder).glob("*.py"))[:limit]


@app.job(timeout=30)
def read_document(path: str, term: str) -> tuple[int, int]:
    """How many words a document has, and how often term is one of them."""
    words = re.findall(r"[a-z]+", Path(path).read_text(encoding="utf-8", errors="replace").lower())
    return len(words), words.count(term)


@app.job(retry_policy=kq.Fixed(delay=0.5, retries=3))
def fail_twice(notes: str) -> str:
    """Raise on the first two attempts."""
    attempt = _count(Path(notes) / "fail_twice")
    if attempt < 3:
        raise ConnectionError(f"no answer from the weather service (attempt {attempt})")
    return f"done at attempt {attempt}"


@app.job(timeout=1, on_timeout="bury")
def hang() -> None:
    """Never end."""
    time.sleep(3600)


@app.job
def lose_executor(notes: str) -> str:
    """Kill the process that runs this job, the first time."""
    if _count(Path(notes) / "lose_executor") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return "done by another executor"


def _count(file: Path) -> int:
    """How many times this was called for file."""
    with file.open("a") as appended:
        appended.write(".")
    return file.stat().st_size
