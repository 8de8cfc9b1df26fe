"""Counters: what a broker is asked to do, on the wire and inside."""

from __future__ import annotations

import contextlib
import re
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.costs.tap import Frames, Tap

#: Nothing happens for so long: what was begun is over. And how long to wait for that at most.
QUIET, PATIENCE = 0.15, 20.0
#: Class and method of queue.declare, which is the question how many messages are ready, too.
DECLARE = b"\x00\x32\x00\x0a"


@dataclass(slots=True)
class Tally:
    """asks: commands, commits or frames to the server. work: what it does for them. size: bytes that it is sent."""

    asks: int = 0
    work: int = 0
    size: int = 0

    def since(self, before: Tally) -> Tally:
        return Tally(*(getattr(self, field.name) - getattr(before, field.name) for field in fields(self)))

    def copy(self) -> Tally:
        return self.since(Tally())


def settled(*tallies: Tally) -> None:
    """Wait until nothing more is counted."""
    until = time.monotonic() + PATIENCE
    seen, since = [tally.copy() for tally in tallies], time.monotonic()
    while time.monotonic() - since < QUIET:
        assert time.monotonic() < until, "it never ends"
        time.sleep(0.01)
        now = [tally.copy() for tally in tallies]
        if now != seen:
            seen, since = now, time.monotonic()


@contextlib.contextmanager
def redis_counted(url: str) -> Iterator[tuple[str, Tally]]:
    """A URL for the server at url, and what it is asked there. asks: commands; work: commands inside of scripts.

    BLPOP is not counted: it is a worker's sleep, once a second.
    """
    tally, port = Tally(), urlsplit(url).port
    assert port is not None

    def sent(data: bytes) -> None:
        tally.size += len(data)

    def monitor() -> None:
        with contextlib.suppress(OSError), line.makefile("rb") as lines:
            for each in lines:
                found = re.match(rb"\+[\d.]+ \[\d+ (\S+)\] \"(\w+)\"", each)
                if found and found[2].upper() != b"BLPOP":
                    tally.asks += found[1] != b"lua"
                    tally.work += found[1] == b"lua"

    with (
        socket.create_connection(("127.0.0.1", port)) as line,
        Tap(port, lambda: sent, lambda: lambda data: None) as tap,
    ):
        line.sendall(b"MONITOR\r\n")
        thread = threading.Thread(target=monitor, name="monitor")
        thread.start()
        yield url.replace(f":{port}", f":{tap.port}"), tally
        line.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextlib.contextmanager
def rabbit_counted(url: str) -> Iterator[tuple[str, Tally]]:
    """The same for a RabbitMQ. asks: frames that it is sent; work: frames that it sends.

    Who reads what a queue holds asks whether that was all until it is: how often is up to the machine, and counts once.
    """
    tally, port = Tally(), urlsplit(url).port
    assert port is not None

    def client() -> Frames:
        last = b""

        def sent(frame: bytes) -> None:
            nonlocal last
            if frame == last and frame[7:11] == DECLARE:
                tally.work -= 1  # its answer
            else:
                tally.asks += 1
                tally.size += len(frame)
            last = frame

        return Frames(sent, greets=True)

    def got(frame: bytes) -> None:
        tally.work += 1

    with Tap(port, client, lambda: Frames(got, greets=False)) as tap:
        yield url.replace(f":{port}", f":{tap.port}"), tally


@contextlib.contextmanager
def sqlite_counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tally]:
    """What all connections of this process to SQLite files do. asks: commits; work: statements.

    Transactions that only read have no commit worth counting: nothing is synced for them.
    """
    tally, connect = Tally(), sqlite3.connect

    def traced(*args: Any, **more: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **more)
        writes = False

        def statement(text: str) -> None:
            nonlocal writes
            word = text.split(None, 1)[0].upper() if text.strip() else ""
            if word in ("BEGIN", "PRAGMA", "--"):
                writes = writes and word != "BEGIN"
            elif word in ("COMMIT", "ROLLBACK"):
                tally.asks += writes and word == "COMMIT"
            else:
                tally.work += 1
                writes = writes or word in ("INSERT", "UPDATE", "DELETE", "REPLACE", "WITH")

        connection.set_trace_callback(statement)
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", traced)
        yield tally
