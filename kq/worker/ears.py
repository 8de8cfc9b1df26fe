"""What wakes a supervisor: its executors and its nursery, the broker, and whoever calls it."""

from __future__ import annotations

import contextlib
import selectors
import socket

from kq.worker.pool import Pool
from kq.worker.sleep import new_selector

#: In the place of the broker's descriptor: it is not listened to.
NOBODY = -1


class Ears:
    """Waits for all that may happen, and lets the pool take in what its processes say."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._selector = new_selector()
        self._version = -1  # of the pool, as the selector knows it
        self._broker = NOBODY  # the broker's descriptor, as the selector knows it
        self._renewed = False
        self._called = False
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._far.setblocking(False)

    @property
    def wakeup(self) -> int:
        """A descriptor to write a byte to: for signal.set_wakeup_fd."""
        return self._far.fileno()

    def wake(self) -> None:
        """End the wait that is on, or the next. From any thread or signal handler."""
        with contextlib.suppress(OSError):  # it has enough to wake up for, or it has ended
            self._far.send(b"!")

    def renew(self) -> None:
        """The broker's descriptor may belong to another socket by now, although it has the same number."""
        self._renewed = True

    def wait(self, seconds: float, broker: int) -> bool:
        """Until something happens, for so many seconds at most. broker: its descriptor, or NOBODY.

        True when the broker has something to say.
        """
        self._watch_pool()
        self._watch_broker(broker)
        self._called = False
        for key, _ in self._selector.select(seconds):
            key.data()
        return self._called

    def close(self) -> None:
        self._selector.close()
        self._near.close()
        self._far.close()

    def _watch_pool(self) -> None:
        for executor in self._pool.unsent():
            executor.flush()
        if self._version == self._pool.version:
            return
        self._version = self._pool.version
        # Built anew, because a closed descriptor's number may come back as another's.
        self._selector.close()
        self._selector = new_selector()
        self._selector.register(self._near, selectors.EVENT_READ, self._hear_call)
        for descriptor, call in self._pool.descriptors().items():
            self._selector.register(descriptor, selectors.EVENT_READ, call)
        self._broker = NOBODY

    def _watch_broker(self, broker: int) -> None:
        if broker == self._broker and not self._renewed:
            return
        if self._broker != NOBODY:
            with contextlib.suppress(KeyError, ValueError, OSError):
                self._selector.unregister(self._broker)
        if broker != NOBODY:
            self._selector.register(broker, selectors.EVENT_READ, self._hear_broker)
        self._broker, self._renewed = broker, False

    def _hear_call(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._near.recv(4096)

    def _hear_broker(self) -> None:
        self._called = True
