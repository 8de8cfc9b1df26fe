"""A thread that may be had, or an error like that for all else that the system has no room for."""

from __future__ import annotations

import threading


def begin(thread: threading.Thread) -> None:
    """Let it run. Raises OSError where the system has no thread to give; Python's own error is none of a network's."""
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(f"the system has no thread to give ({error})") from error
