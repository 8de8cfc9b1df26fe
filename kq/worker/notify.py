"""What systemd is told of a worker that it runs (Type=notify): that it is ready, that it ends, that it goes on.

The protocol of sd_notify(3): datagrams to the socket that NOTIFY_SOCKET names.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress


class Notifier:
    """Tells systemd; nothing where nobody asked for it. every: seconds between two beats that it waits for, or None."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        meant = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        wait = os.environ.get("WATCHDOG_USEC", "") if meant and self._address else ""
        # Half of it, as sd_watchdog_enabled(3) advises.
        self.every = int(wait) / 2_000_000 if wait.isdecimal() and int(wait) else None

    def ready(self, status: str) -> None:
        """It does its work from now on. May be said again."""
        self._say(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        self._say("STOPPING=1\nSTATUS=ending")

    def beat(self, status: str) -> None:
        """Its loop has come round."""
        self._say(f"WATCHDOG=1\nSTATUS={status}", 0.0)

    def _say(self, text: str, patience: float = 1.0) -> None:
        if not self._address:
            return
        # An abstract name is written with @ for its first byte.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(patience)  # a manager that does not read must not stop the loop
            sock.sendto(text.encode(), address)
