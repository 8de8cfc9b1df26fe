"""Other ways into a Redis: a UNIX socket, and TLS."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import kombu
import pytest

import kq_transports
from kq_transports.conformance.engine.world import QUEUE, done, ids, messages, take
from kq_transports.engine import EngineError
from kq_transports.redis import RedisEngine
from kq_transports.redislink import Place
from tests.conftest import available
from tests.servers import RedisServer, free_port, require

kq_transports.register()


class SocketServer(RedisServer):
    """A Redis that listens on a UNIX socket too."""

    @property
    def path(self) -> Path:
        return self.folder / "redis.sock"

    def command(self) -> list[str]:
        return [*super().command(), "--unixsocket", str(self.path)]


class SecureServer(RedisServer):
    """A Redis that speaks TLS, with a certificate of its own for 127.0.0.1."""

    def __init__(self) -> None:
        super().__init__()
        self.secure_port = free_port()
        self.key, self.certificate = self.folder / "key.pem", self.folder / "certificate.pem"
        files = ["-keyout", str(self.key), "-out", str(self.certificate)]
        name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
        make = [require("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files, *name]
        subprocess.run(make, check=True, capture_output=True)

    def command(self) -> list[str]:
        files = ["--tls-cert-file", str(self.certificate), "--tls-key-file", str(self.key)]
        port = ["--tls-port", str(self.secure_port), "--tls-auth-clients", "no"]
        return [*super().command(), *files, *port, "--tls-ca-cert-file", str(self.certificate)]


@pytest.fixture(scope="module")
def sockets() -> Iterator[SocketServer]:
    with available(SocketServer) as server:
        yield server


@pytest.fixture(scope="module")
def secure() -> Iterator[SecureServer]:
    with available(SecureServer) as server:
        yield server


def lives(place: Place) -> None:
    """A job's whole life, with waiting."""
    engine, other = RedisEngine(place), RedisEngine(place)
    engine.declare(QUEUE, {})
    for _ in range(3):
        assert take(engine) == []
        engine.arm([QUEUE])
        other.publish(messages("a"))
        begin = time.monotonic()
        while not (got := take(engine)):
            engine.wait([QUEUE], 5.0)
        assert time.monotonic() - begin < 0.5
        assert ids(got) == "a"
        assert engine.settle(done(got)) == []
    engine.close()
    other.close()


def test_a_unix_socket_carries_jobs(sockets: SocketServer) -> None:
    lives(Place.of(f"unix://{sockets.path}?db=3"))


def test_a_kombu_connection_takes_a_socket(sockets: SocketServer) -> None:
    options = {"socket": str(sockets.path)}
    with kombu.Connection("kq-redis:///1", transport_options=options) as connection:
        queue = connection.SimpleQueue("q")
        queue.put({"a": 1})
        message = queue.get(timeout=5)
        assert message.payload == {"a": 1}
        message.ack()
        queue.close()


def test_tls_carries_jobs(secure: SecureServer) -> None:
    lives(Place.of(f"rediss://127.0.0.1:{secure.secure_port}/0?ssl_ca_certs={secure.certificate}"))


def test_a_kombu_connection_speaks_tls(secure: SecureServer) -> None:
    options = {"ssl_ca_certs": str(secure.certificate)}
    with kombu.Connection(f"kq-rediss://127.0.0.1:{secure.secure_port}/0", transport_options=options) as connection:
        assert "appendonly" in connection.manager.facts()


def test_a_certificate_that_nobody_vouches_for_is_refused(secure: SecureServer) -> None:
    with pytest.raises(EngineError, match="certificate"):
        RedisEngine(Place.of(f"rediss://127.0.0.1:{secure.secure_port}/0")).publish(messages("a"))


def test_an_option_that_the_transport_has_not_got_is_named(sockets: SocketServer) -> None:
    with (
        kombu.Connection(f"kq-redis://127.0.0.1:{sockets.port}/0", transport_options={"colour": "red"}) as connection,
        pytest.raises(EngineError, match="colour"),
    ):
        connection.connect()
