"""Another process, for tests of what happens when one dies, stops or comes back.

It is forked from a server that has imported all it needs, so that a test may have dozens of them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from typing import Any, Concatenate, ParamSpec

from kombu.transport import TRANSPORT_ALIASES

from kq_transports import register

P = ParamSpec("P")

PATIENCE = 30.0  # seconds until a peer that says nothing is given up

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["pytest", "kq_transports.conformance.engine", "kq_transports.conformance.kombu"])


class Peer:
    """A process at the other end of a pipe."""

    def __init__(self, process: multiprocessing.process.BaseProcess, pipe: Pipe) -> None:
        assert process.pid is not None
        self.pid = process.pid
        self._process, self._pipe = process, pipe

    def receive(self, within: float = PATIENCE) -> Any:
        """What the process says next; fails when it says nothing for so many seconds."""
        assert self._pipe.poll(within), f"the other process said nothing for {within} s"
        return self._pipe.recv()

    def send(self, word: object) -> None:
        """Tell it something."""
        self._pipe.send(word)

    def kill(self) -> None:
        """End it as a power failure would."""
        os.kill(self.pid, signal.SIGKILL)
        self._process.join()

    def pause(self) -> None:
        """Let it sleep without knowing it."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Undo pause()."""
        os.kill(self.pid, signal.SIGCONT)

    def join(self) -> None:
        """Wait until it has ended by itself."""
        self._process.join(PATIENCE)
        assert self._process.exitcode == 0, f"the other process ended with {self._process.exitcode}"


@contextmanager
def peer(target: Callable[Concatenate[Pipe, P], None], *args: P.args, **kwargs: P.kwargs) -> Iterator[Peer]:
    """Run target(pipe, …) in another process, killed at the end. target and its arguments are pickled."""
    ours, theirs = _processes.Pipe()
    process = _processes.Process(
        target=_live, args=(dict(TRANSPORT_ALIASES), target, theirs, *args), kwargs=kwargs, daemon=True
    )
    process.start()
    theirs.close()
    try:
        yield Peer(process, ours)
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()


def _live(
    schemes: dict[str, str],
    target: Callable[Concatenate[Pipe, P], None],
    pipe: Pipe,
    *args: P.args,
    **kwargs: P.kwargs,
) -> None:
    """The life of the process: Kombu knows here what it knows there, also a transport of another package."""
    register(schemes)
    target(pipe, *args, **kwargs)
