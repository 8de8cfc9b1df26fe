"""What every channel of these transports does alike, whatever carries it: preparing messages, transactions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from amqp import exceptions
from kombu.transport import base

from kq_transports.engine import Arguments
from kq_transports.envelope import Outgoing, decompressed


class Gathering(Protocol):
    """What a transaction gathers. begun: when the delays of its publishes began, monotonic; None: with its commit."""

    begun: float | None


Gathered = TypeVar("Gathered", bound=Gathering)


class Conversation(base.StdChannel, Generic[Gathered]):
    """A channel's part that needs no broker. gathering: makes what a transaction gathers its publishes and ends in."""

    gathering: Callable[[], Gathered]
    _transaction: Gathered | None = None

    def prepare_message(
        self,
        body: bytes | str,
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
        **_: Any,
    ) -> Outgoing:
        """A message ready for basic_publish()."""
        headers = {} if headers is None else headers
        properties = {} if properties is None else properties
        return Outgoing(body, priority, content_type, content_encoding, headers, properties)

    def prepare_queue_arguments(self, arguments: Arguments, **options: Any) -> Arguments:
        prepared: Arguments = base.to_rabbitmq_queue_arguments(arguments, **options)
        return prepared

    def message_to_python(self, raw_message: Any) -> Any:
        """What Kombu's Consumer hands on: the body as it was before it was compressed."""
        return decompressed(raw_message)

    def tx_select(self) -> None:
        """Gather publishes, acks and rejects from now on, until tx_commit() or tx_rollback()."""
        if self._transaction is None:
            self._transaction = self.gathering()

    def since(self, instant: float) -> None:
        """Let the delays of what the running transaction publishes have begun at an instant of the monotonic clock.

        To gather many messages takes a while, and so does getting through to a broker: by that much none is late then.
        """
        assert self._transaction is not None, "tx_select() comes first"
        self._transaction.begun = instant

    def tx_rollback(self) -> None:
        """Forget what was gathered; the deliveries are unsettled as before."""
        self._gathered()

    def _gathered(self) -> Gathered:
        """What was gathered, and begin anew."""
        if self._transaction is None:
            raise exceptions.PreconditionFailed("the channel is not transactional: call tx_select() first")
        gathered, self._transaction = self._transaction, self.gathering()
        return gathered


def ignore(message: Any) -> None:
    """The callback of a consumer that has none."""
