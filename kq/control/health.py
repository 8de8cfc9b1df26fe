"""What others ask a worker, or control, over HTTP: does it live, does it do its work, what has it counted.

A thread beside the loop answers, with the standard library alone. It reads what the loop leaves for it and never
touches it; only the numbers of all queues, which who makes control's rounds tells, are a look of its own.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from kq import __version__
from kq.app import App
from kq.clock import SYSTEM
from kq.control import Control
from kq.errors import BrokerError, ConfigError, NotStarted
from kq.state.store import StoreUnreachable
from kq.thread import begin
from kq.url import host_and_port
from kq.values import metrics
from kq.values.tally import Tally

#: Seconds that one who asks has to say what he wants.
PATIENCE = 5.0
#: Seconds after which one who asks is looked at again for whom there was no room.
PAUSE = 0.1
#: A loop that has not come round for longer than its lease, and than this, is stuck.
STUCK = 10.0


class Asked(Protocol):
    """Who is asked about. All of it may be looked at from another thread."""

    @property
    def ticked(self) -> float | None:
        """When its loop last came round, by the monotonic clock; None before it began."""

    @property
    def unready(self) -> str:
        """Why it does not do its work now; "" when it does."""

    @property
    def tally(self) -> Tally | None:
        """What it has counted of jobs."""


class Answers:
    """What probes are told, and who gathers metrics. seated: whether it makes control's rounds."""

    def __init__(self, app: App, asked: Asked, seated: Callable[[], bool]) -> None:
        self._app, self._asked, self._seated = app, asked, seated
        self._looking = threading.Lock()
        self._control: Control | None = None

    def answer(self, path: str) -> tuple[int, str, str]:
        """Status, content type and body."""
        match path:
            case "/livez":
                return self._told(self._stuck())
            case "/readyz":
                return self._told(self._asked.unready)
            case "/metrics":
                return 200, metrics.CONTENT_TYPE, self._metrics()
        return 404, "text/plain; charset=utf-8", "there is /livez, /readyz and /metrics\n"

    def close(self) -> None:
        if self._control is not None:
            self._control.close()

    @staticmethod
    def _told(wrong: str) -> tuple[int, str, str]:
        return 503 if wrong else 200, "text/plain; charset=utf-8", f"{wrong or 'ok'}\n"

    def _stuck(self) -> str:
        since, most = self._asked.ticked, max(STUCK, self._app.lease)
        silent = 0.0 if since is None else SYSTEM.monotonic() - since
        return f"the loop has not come round for {silent:.0f} s" if silent > most else ""

    def _metrics(self) -> str:
        told = [metrics.of_build(__version__, self._app.broker.traits.name)]
        counted = self._asked.tally
        if counted is not None:
            told += metrics.of_worker(counted)
        if self._seated():
            told += self._of_all()
        return metrics.text(told)

    def _of_all(self) -> list[metrics.Metric]:
        """The numbers of all queues; none while nobody answers."""
        with self._looking:
            self._control = self._control or Control(self._app)
            try:
                return list(metrics.of_all(self._control.snapshot(), self._control.answers))
            except (BrokerError, StoreUnreachable):
                return []


@contextmanager
def served(address: str, answers: Answers) -> Iterator[None]:
    """Answer at address (HOST:PORT) while the block runs. Raises ConfigError when nobody can listen there."""
    host, port = host_and_port(address)

    class Handler(BaseHTTPRequestHandler):
        timeout = PATIENCE

        def do_GET(self) -> None:
            status, kind, body = answers.answer(self.path.partition("?")[0])
            data = body.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """A probe every few seconds is no news."""

        def version_string(self) -> str:
            return "kq"

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True

        def get_request(self) -> tuple[socket.socket, Any]:
            try:
                return super().get_request()
            except OSError:
                time.sleep(PAUSE)  # who asks is still there when there is room for him: look now and then
                raise

    try:
        server = Server((host, port), Handler)
    except OSError as error:
        raise ConfigError(
            f"health is to be told at {address}, but nobody can listen there: {error}", fix="Choose another port."
        ) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.5}, name="kq-health", daemon=True)
    try:
        begin(thread)
    except NotStarted:
        server.server_close()
        raise
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE)
        answers.close()
