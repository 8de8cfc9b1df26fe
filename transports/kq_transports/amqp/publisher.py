"""A line that publishes."""

from __future__ import annotations

from collections.abc import Sequence

from kq_transports.amqp.line import Address, Line
from kq_transports.amqp.outlet import Outlet, Publishing
from kq_transports.engine import Full, Options


class Publisher(Line):
    """A connection on which messages are published and nothing else."""

    def __init__(self, address: Address, options: Options) -> None:
        super().__init__(address, options)
        self._outlet: Outlet | None = None

    @property
    def outlet(self) -> Outlet:
        """The channel for publishes."""
        outlet = self._outlet
        if outlet is not None and outlet.usable:
            return outlet
        with self._opening:
            if self._outlet is None or not self._outlet.usable:
                self._outlet = Outlet(self)
            return self._outlet

    def open_outlet(self) -> None:
        """Have the channel for publishes, so that the next one need not wait for it."""
        self.check()
        assert self.outlet

    def publish(self, messages: Sequence[Publishing], until: float) -> list[Publishing]:
        """Store messages; returns those that no queue wanted. Raises as Outlet.store()."""
        self.check()
        self.look()
        if self.blocked:
            raise Full(f"{self.peer} takes no messages: {self.blocked}; nothing was stored")
        return self.outlet.store(messages, until)

    @property
    def held(self) -> bool:
        return False
