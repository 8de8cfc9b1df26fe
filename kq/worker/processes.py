"""Several workers as one program: processes side by side, and who starts them again."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence

from kq.errors import WorkerUnfit
from kq.worker.notify import Notifier

log = logging.getLogger("kq.worker")


class Processes:
    """Several workers side by side, each a process of its own; one that dies is started again, one that retires is not.

    commands: that of each. lasting: one that can't start, or ends itself, does not end the others, and is started
    again by HUP: its code may have changed.
    They obey this one alone, through a pipe each: a signal to the whole group, as from a terminal or a service
    manager, is meant once. When this process dies the pipes close, and they stop.
    """

    #: Seconds before a worker that died is started again.
    PAUSE = 0.2
    OBEYED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self, commands: Sequence[Sequence[str]], *, lasting: bool = False) -> None:
        self._lasting = lasting
        self._children: dict[subprocess.Popen[bytes], int] = {}  # and where each is told what to do
        self._waiting = list(commands)  # to be started
        self._stopping = False
        self._code = 0
        self._notifier = Notifier()

    def run(self) -> int:
        """Until all have ended; returns 0, or the exit code of a worker that could not start or ended itself."""
        # Signals are read like any other input, one after the other: what they lead to is not cut in two by the next.
        ears, mouth = socket.socketpair()
        mouth.setblocking(False)
        for number in (*self.OBEYED, signal.SIGCHLD):
            signal.signal(number, lambda number, at: None)
        signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
        ears.settimeout(self._notifier.every)
        self._start()
        self._notifier.ready(self._told)
        while self._children or (self._waiting and not self._stopping):
            for heard in self._heard(ears):
                if heard == signal.SIGCHLD:
                    self._reap()
                else:
                    self._pass_on(heard)
        return self._code

    def _heard(self, ears: socket.socket) -> bytes:
        """The signals that came, or none when it is time to show that this one goes on."""
        heard = b""
        with contextlib.suppress(TimeoutError):
            heard = ears.recv(4096)
        self._notifier.beat(self._told)
        return heard

    @property
    def _told(self) -> str:
        return f"{len(self._children)} workers"

    def _start(self) -> None:
        """Start those that wait."""
        while self._waiting:
            reader, writer = os.pipe()
            command = [*self._waiting.pop(), "--orders", str(reader)]
            self._children[subprocess.Popen(command, pass_fds=[reader])] = writer
            os.close(reader)

    def _reap(self) -> None:
        for child in [each for each in self._children if each.poll() is not None]:
            os.close(self._children.pop(child))
            command: Sequence[str] = child.args[:-2]  # type: ignore[index, assignment]
            if child.returncode < 0 and not self._stopping:
                time.sleep(self.PAUSE)
                self._waiting.append(command)
                self._start()
            elif child.returncode > 0 and self._lasting:
                self._waiting.append(command)
                log.warning("it is started again when something has changed")
            elif child.returncode == WorkerUnfit.exit_code:
                self._code = self._code or child.returncode  # the others go on for as long as they can
            elif child.returncode > 0:
                # It ended by itself, with an error that starting again would only repeat.
                self._code = self._code or child.returncode
                self._pass_on(signal.SIGTERM)

    def _pass_on(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stopping = True
            self._notifier.stopping()
        for orders in self._children.values():
            with contextlib.suppress(BrokenPipeError):
                os.write(orders, bytes([number]))
        if number == signal.SIGHUP and not self._stopping:
            self._start()
