"""The control program: rounds without end, in a thread beside a worker or as a program of its own."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from kq.app import App
from kq.clock import SYSTEM
from kq.control.rounds import Rounds
from kq.errors import BrokerUnreachable, KqError
from kq.state.store import StoreUnreachable
from kq.thread import begin
from kq.values.redaction import one_line
from kq.values.tally import Tally

log = logging.getLogger("kq.control")

#: Seconds that the thread has to end with its worker; a broker that does not answer must not keep that.
PATIENCE = 1.0


class Program:
    """Makes rounds until stop(). It survives whatever its broker and state store do, and what goes wrong here.

    level: at which outages are told.
    """

    def __init__(self, app: App, level: int = logging.WARNING) -> None:
        self._app = app.apart()
        self._level = level
        self._over = threading.Event()
        self._failing = False
        self._making: Rounds | None = None
        #: For who looks from another thread: when a round last began, monotonic.
        self.ticked: float | None = None
        #: It counts no jobs.
        self.tally: Tally | None = None

    @property
    def seated(self) -> bool:
        """Whether it is the one that makes rounds now. From any thread."""
        return self._making is not None and self._making.seated

    @property
    def unready(self) -> str:
        """Why it makes no rounds now; "" when it does, or another does. From any thread."""
        if self._over.is_set():
            return "it ends"
        if self._making is None:
            return "it begins"
        return "the broker or the state store does not answer" if self._failing else ""

    def stop(self) -> None:
        """Let run() return soon. May be called by a signal handler."""
        self._over.set()

    def run(self) -> None:
        """Make rounds until stop()."""
        rounds = self._rounds()
        try:
            while not self._over.wait(0):
                self.ticked = SYSTEM.monotonic()
                try:
                    pause = rounds.tick()
                    self._failing = False
                except Exception as error:
                    self._tell(error)
                    rounds.close()
                    rounds, pause = self._rounds(), self._app.lease / 3
                self._over.wait(pause)
        finally:
            rounds.close()
            self._app.close()

    def _rounds(self) -> Rounds:
        rounds = self._making = Rounds(self._app, lambda: log.info("control: %s has the seat", rounds.name))
        return rounds

    def _tell(self, error: Exception) -> None:
        """Say once that rounds fail, and why; with a traceback where nobody thought of it."""
        if not self._failing:
            outage, foreseen = isinstance(error, BrokerUnreachable | StoreUnreachable), isinstance(error, KqError)
            level = self._level if outage else logging.WARNING
            trace = None if outage or foreseen else error
            told = one_line(str(error).partition("\n")[0]) or type(error).__name__
            log.log(level, "control: %s; trying again", told, exc_info=trace)
        self._failing = True


@contextmanager
def controlled(app: App) -> Iterator[Program]:
    """Make rounds in a thread while the block runs."""
    program = Program(app, logging.DEBUG)  # its worker tells of outages
    thread = threading.Thread(target=program.run, name="kq-control", daemon=True)
    begin(thread)
    try:
        yield program
    finally:
        program.stop()
        thread.join(PATIENCE)


def run(app: App, health: str | None = None) -> None:
    """Make rounds until TERM or INT. health: HOST:PORT where it answers /livez, /readyz and /metrics over HTTP."""
    program = Program(app)

    def on_signal(number: int, at: FrameType | None) -> None:
        program.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    if health is None:
        program.run()
        return
    # Here and not above: who is not asked does not pay for a server.
    from kq.control.health import Answers, served

    with served(health, Answers(app, program, lambda: program.seated)):
        program.run()
