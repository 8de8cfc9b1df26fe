"""The doctor on settings and this machine: origins, secrets, who runs kq, and what the system lets it have."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

from kq.cli.doctor.finding import Finding
from kq.units import counted
from kq.url import redact
from kq.values.config import Worker
from kq.values.given import Loaded, misspelt, secret_variables
from kq.worker.program import CONCURRENCY

#: Files that a worker needs for itself and for each of its executors: measured 25 and 5, and half as many again.
FILES, FILES_EACH = 40, 8


def settings(loaded: Loaded) -> Iterator[Finding]:
    """Where they come from, and whether they tell secrets."""
    yield Finding("ok", "settings", f"read from {loaded.file}" if loaded.file else "no config file, the defaults count")
    for name, meant in misspelt(os.environ).items():
        yield Finding("warn", "settings", f"{name} is set but means nothing to kq", f"Did you mean {meant}?")
    if loaded.file and stat.S_IMODE(loaded.file.stat().st_mode) & 0o044 and _has_password(loaded, loaded.file):
        fix = "Write url_file:, or chmod 600 it."
        yield Finding("warn", "settings", f"{loaded.file.name} holds a password and others may read it", fix)
    if loaded.origins.get("url") == "--url" and redact(loaded.config.url) != loaded.config.url:
        fix = "Write url_file: in kq.yaml, or set KQ_URL_FILE."
        yield Finding(
            "warn", "settings", "the URL on the command line holds a password, which every user sees in ps", fix
        )

    for name in secret_variables(os.environ):
        what = f"{name} holds a password, which every process of this user can read in /proc"
        yield Finding("warn", "settings", what, f"Put it into a file and set {name}_FILE.")


def _has_password(loaded: Loaded, file: Path) -> bool:
    """Whether a password is written in the config file itself."""
    urls = {"url": loaded.config.url, "state": loaded.config.state or ""}
    written = [url for key, url in urls.items() if loaded.origins.get(key, "").startswith(file.name)]
    return any(redact(url) != url for url in written) and "${" not in file.read_text()


def this_host(wish: Worker) -> Iterator[Finding]:
    """Who runs kq here, and with which limits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield user(os.geteuid())
    yield files(soft, hard, wish.concurrency or CONCURRENCY[wish.pool])


def user(uid: int) -> Finding:
    """uid: the effective user id."""
    if uid == 0:
        fix = "Give the worker a user of its own; docs/deploy.md has a unit and an image that do."
        return Finding("warn", "host", "kq runs as root, and so do all jobs", fix)
    return Finding("ok", "host", f"kq runs as user {uid}")


def files(soft: int, hard: int, slots: int) -> Finding:
    """soft, hard: how many files a process may have open; -1 without limit. slots: jobs at once."""
    needed = FILES + FILES_EACH * slots
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return Finding("ok", "host", f"a process may open {'any number of' if soft < 0 else soft} files")
    fix = f"ulimit -n {needed}" if hard < 0 or hard >= needed else f"Raise the hard limit, {hard}, first"
    what = f"a process may open {soft} files; a worker for {counted(slots, 'job')} at once needs about {needed}"
    return Finding("warn", "host", what, f"{fix}; in a systemd unit LimitNOFILE=.")
