"""Connecting: in time, whatever a network or one of a host's addresses does."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from kq_transports.tcp import BESIDE, connected
from tests.scarce import no_more_threads
from tests.servers import free_port

SLACK = 2.0  # seconds, on a busy machine


@contextmanager
def silent() -> Iterator[socket.socket]:
    """A listener whose queue is full: it answers nobody who wants to connect, until accept()."""
    with socket.socket() as listener, ExitStack() as before:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        before.enter_context(socket.create_connection(listener.getsockname(), 5))
        yield listener


def test_who_is_silent_for_a_while_is_asked_again_every_second() -> None:
    with silent() as listener, ExitStack() as left:
        opened = list[float]()

        def open() -> None:
            opened.append(time.monotonic())
            left.enter_context(listener.accept()[0])

        threading.Timer(3.1, open).start()
        with connected("127.0.0.1", listener.getsockname()[1], time.monotonic() + 10):
            assert time.monotonic() - opened[0] < BESIDE + SLACK


def test_an_address_that_is_silent_takes_no_time_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent() as listener, socket.create_server(("127.0.0.1", 0)) as other:
        ways = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", each.getsockname()) for each in (listener, other)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: ways)
        began = time.monotonic()
        with connected("host", 1, began + 5) as sock:
            assert sock.getpeername() == other.getsockname()
        assert time.monotonic() - began < BESIDE + SLACK


def test_a_name_that_no_thread_can_look_up_is_an_error_like_any_other_of_the_network() -> None:
    with no_more_threads(), pytest.raises(OSError, match="the system has no thread to give"):
        connected("localhost", free_port(), time.monotonic() + 5)


def test_who_refuses_is_not_asked_again() -> None:
    began = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        connected("127.0.0.1", free_port(), began + 5)
    assert time.monotonic() - began < SLACK


def test_who_stays_silent_is_given_up_in_time() -> None:
    with silent() as listener:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            connected("127.0.0.1", listener.getsockname()[1], began + 1.5)
        assert 1.5 <= time.monotonic() - began < 1.5 + SLACK


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_ordinary_name_imports_no_tables_of_unicode(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = (
            "import sys, time; from kq_transports.tcp import connected; "
            f"connected({host!r}, {server.getsockname()[1]}, time.monotonic() + 30); "
            "print('encodings.idna' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
