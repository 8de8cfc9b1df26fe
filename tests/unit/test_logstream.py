"""Lines of the log on their way to somebody who reads them, or has stopped."""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import time
from collections.abc import Iterator

import pytest

from kq.cli import logstream
from kq.cli.logstream import PATIENCE, LogStream

#: Bytes of the pipe.
SIZE = 4 * mmap.PAGESIZE


class Told:
    """A log that goes into a small pipe, and who reads it."""

    def __init__(self) -> None:
        self._reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, SIZE)
        os.set_blocking(self._reader, False)
        self._stream = open(writer, "w")  # noqa: SIM115 (close() closes it)
        self.log = LogStream(self._stream)

    def say(self, text: str) -> None:
        self.log.handle(logging.LogRecord("kq", logging.INFO, "", 0, text, None, None))

    def read(self) -> str:
        """All that there is to be read."""
        said = b""
        try:
            while more := os.read(self._reader, 1 << 16):
                said += more
        except BlockingIOError:
            pass
        return said.decode()

    def leave(self) -> None:
        """Nobody reads any more."""
        os.close(self._reader)
        self._reader = -1

    def close(self) -> None:
        self.log.close()
        self._stream.close()
        if self._reader >= 0:
            self.leave()


@pytest.fixture
def told() -> Iterator[Told]:
    told = Told()
    yield told
    told.close()


def test_a_line_is_written_at_once(told: Told) -> None:
    told.say("one")
    assert told.read() == "one\n"


def test_who_stops_reading_is_waited_for_once_and_has_all_when_he_goes_on(told: Told) -> None:
    lines = [f"{number} {'x' * 100}\n" for number in range(500)]
    began = time.monotonic()
    for line in lines:
        told.say(line[:-1])
    assert time.monotonic() - began < 20 * PATIENCE  # and not 300 times
    said = told.read()
    while len(said) < sum(map(len, lines)):
        told.say("more")
        said += told.read()
    assert said.startswith("".join(lines))


def test_what_is_lost_is_told_where_it_would_stand(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logstream, "KEPT", 2)
    told.say("x" * (SIZE - 1))
    for text in ("one", "two", "three", "four"):
        told.say(text)
    assert told.read().strip("x") == "\n"
    told.say("five")
    assert told.read() == "one\ntwo\n2 lines of the log are lost: nobody has read it\nfive\n"


def test_a_line_that_is_longer_than_a_pipe_comes_whole(told: Told) -> None:
    long = "x" * (5 * SIZE)
    told.say(long)
    said = told.read()
    while "more" not in said:
        told.say("more")
        said += told.read()
    assert said.startswith(f"{long}\nmore\n")


def test_who_has_gone_is_no_error(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    told.leave()
    told.say("one")
    told.say("two")
    assert capsys.readouterr() == ("", "")
