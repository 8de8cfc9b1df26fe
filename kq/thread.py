"""A thread without which a program can't begin."""

from __future__ import annotations

import threading

from kq.errors import NotStarted


def begin(thread: threading.Thread) -> None:
    """Let it run. Raises NotStarted where the system has no thread to give."""
    try:
        thread.start()
    except RuntimeError as error:  # Python has no error of its own for it
        raise NotStarted(
            f"the system has no thread to give for {thread.name} ({error})",
            fix="Raise the limit of processes (ulimit -u, TasksMax= in a systemd unit), or give it more memory.",
        ) from error
