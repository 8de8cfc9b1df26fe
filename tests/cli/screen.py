"""A program at a terminal: what is seen there, keys, and whether the terminal is as it was."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cli.conftest import heed_ctrl_c

#: Seconds within which something is seen.
PATIENCE = 30.0
_LINE = re.compile(r"\x1b\[(\d+);1H(.*?)(?=\x1b\[\d+;1H|\x1b\[\?|\x1b\[2J|\Z)", re.DOTALL)
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Screen:
    """Our end of the terminal of a program."""

    process: subprocess.Popen[bytes]
    ours: int
    theirs: int
    usual: list[object]
    raw: bytes = b""

    def press(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def seen(self) -> str:
        """What is on the screen now."""
        while select.select([self.ours], [], [], 0.02)[0]:
            self.raw += os.read(self.ours, 65536)
        text = self.raw.decode(errors="replace")
        drawn = text[text.rfind("\x1b[2J") :]
        lines = {int(found[1]): _STYLE.sub("", found[2]) for found in _LINE.finditer(drawn)}
        return "\n".join(lines[number] for number in sorted(lines))

    def see(self, *texts: str) -> str:
        """Wait until all texts are on the screen; returns it."""
        return self.wait(lambda seen: all(text in seen for text in texts), repr(texts))

    def wait(self, holds: Callable[[str], bool], what: str) -> str:
        """Wait until holds is true of the screen; returns it."""
        until = time.monotonic() + PATIENCE
        while not holds(seen := self.seen()):
            assert self.process.poll() is None, f"it ended: {self.raw[-2000:]!r}"
            assert time.monotonic() < until, f"not seen: {what}\n{seen}"
        return seen

    @property
    def is_as_it_was(self) -> bool:
        """Whether the terminal's modes are those from before, with the usual screen and a cursor."""
        self.seen()
        back = self.raw.rfind(b"\x1b[?1049l") > self.raw.rfind(b"\x1b[?1049h")
        cursor = self.raw.rfind(b"\x1b[?25h") > self.raw.rfind(b"\x1b[?25l")
        return termios.tcgetattr(self.theirs) == self.usual and back and cursor

    def end(self) -> int:
        """Wait until the program has ended; returns its exit code."""
        until = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            self.seen()  # who ends must not wait for somebody to read
            assert time.monotonic() < until, "it does not end"
        return self.process.returncode


@contextmanager
def at_a_screen(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], width: int = 100, height: int = 30
) -> Iterator[Screen]:
    """Run command at a terminal of this size; killed afterwards if it still runs."""
    ours, theirs = pty.openpty()
    resize(theirs, width, height)
    usual = termios.tcgetattr(theirs)
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**environment, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        process_group=0,
        preexec_fn=heed_ctrl_c,
    )
    try:
        yield Screen(process, ours, theirs, usual)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def resize(terminal: int, width: int, height: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
