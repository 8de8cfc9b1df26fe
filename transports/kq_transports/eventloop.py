"""Deliveries driven by an outer event loop, such as the hub of a Celery worker. By descriptors; nobody polls."""

from __future__ import annotations

from typing import Any

from kq_transports.connection import Connection


class Pump:
    """Drains a connection whenever its engine says that there may be something."""

    def __init__(self, connection: Connection, loop: Any) -> None:
        self._connection = connection
        self._loop = loop
        self._descriptor = -1
        self._timer: Any = None
        connection.watched = True
        loop.add_reader(connection.alarm.descriptor, self._run)
        connection.on_close = self._stop
        connection.alarm.ring()

    def _run(self) -> None:
        """Drain until nothing is there, then arm."""
        connection = self._connection
        connection.alarm.quiet()
        try:
            connection.drain(timeout=0)
        except TimeoutError:
            self._arm()
        else:
            # One batch at a time, so that the loop's other work has its turn.
            connection.alarm.ring()

    def _arm(self) -> None:
        descriptor, due = self._connection.watch()
        if descriptor != self._descriptor:
            self._unwatch()
        self._descriptor = descriptor
        # Each time: after a reconnect another socket may have the same number, and the loop not know it.
        self._loop.add_reader(descriptor, self._run)
        self._cancel()
        if due is not None:
            self._timer = self._loop.call_later(due, self._run)

    def _unwatch(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _stop(self) -> None:
        self._unwatch()
        self._cancel()
        self._loop.remove_reader(self._connection.alarm.descriptor)
        self._connection.watched = False
