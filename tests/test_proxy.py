"""The proxy that the other tests trust when they speak of a bad network."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from kq_transports.conformance.proxy import Proxy


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy before a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads: list[threading.Thread] = []

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=echo, args=(peer,)))
                threads[-1].start()

        accepting = threading.Thread(target=serve)
        accepting.start()
        with Proxy(listener.getsockname()[1]) as proxy:
            yield proxy
        listener.shutdown(socket.SHUT_RDWR)
        for thread in (accepting, *threads):
            thread.join()


def echo(peer: socket.socket) -> None:
    with peer:
        try:
            while data := peer.recv(1000):
                peer.sendall(data)
        except OSError:
            return


def connect(proxy: Proxy) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", proxy.port))
    client.settimeout(5)
    return client


def ask(client: socket.socket, data: bytes = b"hello") -> bytes:
    client.sendall(data)
    return client.recv(1000)


def test_bytes_pass_both_ways(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert ask(client) == b"hello"


def test_cut_resets_open_connections_and_takes_new_ones(proxy: Proxy) -> None:
    with connect(proxy) as client, connect(proxy) as other:
        ask(client)
        ask(other)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connect(proxy) as client:
        assert ask(client) == b"hello"


def test_drop_closes_in_good_order(proxy: Proxy) -> None:
    with connect(proxy) as client:
        ask(client)
        proxy.drop()
        assert client.recv(1) == b""


def test_refuse_resets_new_connections_until_restored(proxy: Proxy) -> None:
    proxy.refuse()
    with connect(proxy) as client, pytest.raises(ConnectionError):
        ask(client)
    proxy.restore()
    with connect(proxy) as client:
        assert ask(client) == b"hello"


def test_what_a_frozen_network_swallowed_arrives_late(proxy: Proxy) -> None:
    with connect(proxy) as client:
        ask(client)
        proxy.freeze()
        client.sendall(b"late")
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        proxy.restore()
        client.settimeout(5)
        assert client.recv(1000) == b"late"


def test_a_half_open_connection_takes_bytes_and_says_nothing(proxy: Proxy) -> None:
    with connect(proxy) as client:
        ask(client)
        proxy.forget()
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            ask(client)
        assert proxy.connections == 1


def test_a_delayed_byte_arrives_after_the_delay(proxy: Proxy) -> None:
    with connect(proxy) as client:
        proxy.delay(0.05)
        begin = time.monotonic()
        assert ask(client) == b"hello"
        assert time.monotonic() - begin >= 0.1
