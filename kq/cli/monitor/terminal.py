"""The terminal: raw keys in, a screen out, and everything as it was when the program ends, stops or crashes."""

from __future__ import annotations

import base64
import os
import select
import signal
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

from rich.color import ColorSystem

from kq.cli.monitor.board import Picture, Size
from kq.cli.monitor.ink import Line
from kq.cli.monitor.keys import read

#: The other screen, no cursor, no line that wraps, and what is pasted comes in brackets; and back.
_ON = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[?2004h\x1b[2J"
_OFF = "\x1b[?2004l\x1b[?7h\x1b[0m\x1b[?25h\x1b[?1049l"
#: Seconds that the rest of a key may take to come, over a slow line.
ESCAPE = 0.05
#: Size where nobody knows it.
USUAL = Size(80, 24)


class Ended(SystemExit):
    """The program was told to end by a signal."""


class Terminal:
    """keyboard, screen: file descriptors. color: None for none. A context manager: the terminal is ours within it.

    Wakes from `wait` when a signal comes and when somebody calls `wake`, from whichever thread.
    """

    def __init__(self, keyboard: int, screen: int, color: ColorSystem | None) -> None:
        self._keyboard, self._screen, self._color = keyboard, screen, color
        self._usual: list[Any] = []
        self._handlers: dict[int, Any] = {}
        self._shown: list[str] = []
        self._typed = b""
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._waker, False)

    def __enter__(self) -> Terminal:
        self._usual = termios.tcgetattr(self._keyboard)
        handlers = {
            signal.SIGTERM: self._end,
            signal.SIGHUP: self._end,
            signal.SIGTSTP: self._stop,
            signal.SIGCONT: self._go_on,
            signal.SIGWINCH: self._changed,
        }
        self._handlers = {each: signal.signal(each, handler) for each, handler in handlers.items()}
        self._wakeup = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        self._take()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._give_back()
        signal.set_wakeup_fd(self._wakeup)
        for each, handler in self._handlers.items():
            signal.signal(each, handler)
        os.close(self._woken)
        os.close(self._waker)

    def _take(self) -> None:
        tty.setcbreak(self._keyboard, termios.TCSADRAIN)
        self._shown = []
        self._write(_ON)

    def _give_back(self) -> None:
        with suppress(OSError):  # it may have gone
            self._write(_OFF)
        with suppress(termios.error):
            termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._usual)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """The terminal is another program's, which has ctrl-C for itself."""
        self._give_back()
        # A function and not SIG_IGN: that, the other program would inherit.
        mine = signal.signal(signal.SIGINT, lambda number, frame: None)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, mine)
            self._take()

    # Signals.

    def _end(self, number: int, frame: FrameType | None) -> None:
        raise Ended(128 + number)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # here it stands still until somebody lets it go on
        signal.signal(signal.SIGTSTP, self._stop)
        self._take()  # the system stops no program that nobody could let go on

    def _go_on(self, number: int, frame: FrameType | None) -> None:
        # Also after SIGSTOP, which says nothing before: the shell has used the terminal meanwhile.
        self._take()

    def _changed(self, number: int, frame: FrameType | None) -> None:
        self.forget()

    # Reading.

    def wake(self) -> None:
        """Let wait return."""
        with suppress(BlockingIOError, OSError):  # it is awake, or it has ended
            os.write(self._waker, b".")

    def wait(self, timeout: float) -> list[str]:
        """The keys that were pressed, within timeout seconds; none when something else woke us."""
        patience = ESCAPE if self._typed else timeout
        ready, _, _ = select.select([self._keyboard, self._woken], [], [], max(0.0, patience))
        if self._woken in ready:
            with suppress(BlockingIOError):
                os.read(self._woken, 4096)
        if self._keyboard in ready:
            typed = os.read(self._keyboard, 4096)
            if not typed:
                raise Ended(128 + signal.SIGHUP)  # the terminal has gone
            keys, self._typed = read(self._typed + typed)
            return keys
        if self._typed and not ready:
            keys, self._typed = read(self._typed, whole=True)
            return keys
        return []

    # Writing.

    def size(self) -> Size:
        """How large the screen is."""
        try:
            columns, lines = os.get_terminal_size(self._screen)
        except OSError:
            return USUAL
        return Size(columns or USUAL.width, lines or USUAL.height)

    def forget(self) -> None:
        """Draw everything anew the next time."""
        self._shown = []

    def paint(self, picture: Picture) -> None:
        """Show picture: the lines that are not the same as before are written."""
        lines = [self._encoded(line) for line in picture.lines]
        changes = [] if len(self._shown) == len(lines) else ["\x1b[2J"]
        before = self._shown if not changes else [""] * len(lines)
        changes += [
            f"\x1b[{n};1H{line}" for n, (line, old) in enumerate(zip(lines, before, strict=True), 1) if line != old
        ]
        self._shown = lines
        if changes:
            self._write("".join(changes))

    def _encoded(self, line: Line) -> str:
        return "".join(
            (style if self._color is not None else style.without_color).render(
                text, color_system=self._color or ColorSystem.STANDARD
            )
            if style
            else text
            for text, style, _ in line
        )

    def copy(self, text: str) -> None:
        """Put text on the clipboard, where the terminal lets programs do that (OSC 52)."""
        self._write(f"\x1b]52;c;{base64.b64encode(text.encode()).decode()}\x07")

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._screen, data) :]
