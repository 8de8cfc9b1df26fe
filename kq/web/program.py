"""`kq web` as a program: what it dares to listen to, and a server that ends when it is told to."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from kq.control import Control
from kq.credential import Role
from kq.errors import ConfigError
from kq.url import host_and_port, is_loopback, state_folder
from kq.values.config import Web
from kq.web.guard import LIVE
from kq.web.limits import Limited
from kq.web.links import Links
from kq.web.patience import Patient
from kq.web.sessions import Doorkeeper
from kq.web.site import OPEN, Site

log = logging.getLogger("kq.web")

#: The variable that says that this program begins anew: whoever looks at its page has a session already.
AGAIN = "KQ_WEB_AGAIN"
_AGAIN = os.environ.pop(AGAIN, "")
#: Seconds that answers under way are given at the end.
GRACE = 5


def run(control: Control, wish: Web, orders: int = -1, *, protected: bool = False) -> int:
    """Serve until told to end; returns the exit code.

    orders: a descriptor on which a parent says so, instead of signals. protected: all may only look. Raises
    ConfigError where it would be open to strangers, or nobody can listen there.
    """
    host, port = host_and_port(wish.listen)
    named = bool(wish.users or wish.tokens)
    _must_be_safe(host, wish, named)
    doorkeeper = Doorkeeper(wish.users, wish.tokens) if named else None
    links = _links(wish, host)
    hosts = {*wish.hosts, host} - {""}
    most: Role = "view" if protected else "edit"
    site = Site(
        control, doorkeeper=doorkeeper, links=links, hosts=hosts, hide=wish.hide, most=most, traces=wish.traces or ""
    )
    server = _Server(config_of(site, wish), links, orders)
    with _socket(host, port, wish.listen) as line:
        server.run([line])
    if server.renew:
        log.warning("starting anew with new code")
        os.environ[AGAIN] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return 0


def link_of(wish: Web) -> str:
    """A link to the page that this user runs. Raises ConfigError where people sign in by name."""
    host, port = host_and_port(wish.listen)
    links = _links(wish, host)
    if links is None:
        raise ConfigError("people sign in by name at this page", fix="web.users names them.")
    return address_of(links.make(), host, port, secure=wish.certificate is not None)


def _links(wish: Web, host: str) -> Links | None:
    return Links(state_folder() / "web") if not wish.users and is_loopback(host) else None


def address_of(link: str, host: str, port: int, *, secure: bool) -> str:
    """What a browser opens for a link."""
    scheme, shown = "https" if secure else "http", f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{port}{OPEN}?link={link}"


def _must_be_safe(host: str, wish: Web, named: bool) -> None:
    if not named and not is_loopback(host):
        raise ConfigError(
            f"kq web does not listen at {wish.listen} where nobody has to sign in: who reaches it could do everything",
            fix="Set web.users (kq web --hash-password makes a line) or web.tokens, or listen at 127.0.0.1.",
        )
    if (wish.certificate is None) != (wish.key is None):
        raise ConfigError("web.certificate and web.key go together, and one is set", fix="Set both, or none.")
    for path in filter(None, (wish.certificate, wish.key)):
        if not os.access(path, os.R_OK):
            raise ConfigError(f"web.certificate or web.key: the file {path} can't be read")
    if not is_loopback(host) and not wish.certificate and not wish.proxies:
        log.warning(
            "passwords go to %s in the open: set web.certificate and web.key, or a proxy before it", wish.listen
        )


def config_of(site: ASGIApp, wish: Web) -> uvicorn.Config:
    """How a server serves site."""
    return uvicorn.Config(
        Limited(site, LIVE),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(wish.proxies),
        forwarded_allow_ips=list(wish.proxies),
        ssl_certfile=wish.certificate,
        ssl_keyfile=wish.key,
        timeout_graceful_shutdown=GRACE,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=64 * 1024,
        ws="none",
        http=Patient,
        loop="asyncio",
    )


def _socket(host: str, port: int, where: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    line = socket.socket(family)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        line.bind((host, port))
    except OSError as error:
        line.close()
        raise ConfigError(
            f"nobody can listen at {where}: {error}", fix="Choose another: kq web --listen HOST:PORT."
        ) from error
    return line


class _Server(uvicorn.Server):
    """Says where it is when it is ready; ends, or begins anew, when a signal or its parent says so."""

    def __init__(self, config: uvicorn.Config, links: Links | None, orders: int) -> None:
        super().__init__(config)
        self.renew = False
        self._links, self._orders = links, orders
        self._actions: dict[int, Callable[[], None]] = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGHUP: self._try_new_code,
        }

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = (sockets or [])[0].getsockname()[:2]
        scheme = "https" if self.config.is_ssl else "http"
        shown = f"[{host}]" if ":" in host else host
        log.info("ready: %s://%s:%d/", scheme, shown, port)
        if self._links is None:
            return
        if sys.stderr.isatty() and not _AGAIN:
            # Not into the log: it is a secret.
            link = address_of(self._links.make(), host, port, secure=self.config.is_ssl)
            sys.stderr.write(f"This link opens it, once and within an hour: {link}\n")
        else:
            log.info("kq web --link prints a link that opens it")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own dies of the signal in the end; to be told to end is no error."""
        for number in (*self._actions, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._on_signal)
        if self._orders >= 0:
            threading.Thread(target=self._obey, name="kq-orders", daemon=True).start()
        yield

    def _on_signal(self, number: int, at: FrameType | None) -> None:
        if self._orders < 0 and number in self._actions:
            self._actions[number]()

    def _obey(self) -> None:
        """Do what a parent says, a byte for each signal; when it is gone, end."""
        while order := os.read(self._orders, 1):
            self._actions.get(order[0], lambda: None)()
        self._stop()

    def _stop(self) -> None:
        if self.should_exit:
            self.force_exit = True
        self.should_exit, self.renew = True, False

    def _try_new_code(self) -> None:
        """Begin anew when the new code imports, which a process of its own finds out while this one goes on."""

        def find_out() -> None:
            trial = subprocess.run([sys.executable, *sys.orig_argv[1:], "--trial"], check=False)
            if trial.returncode:
                log.error("the page stays with the code that it has")
            elif not self.should_exit:
                self.should_exit = self.renew = True

        threading.Thread(target=find_out, name="kq-trial", daemon=True).start()
