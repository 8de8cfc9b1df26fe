"""What RabbitMQ says no with, in the words of the seam."""

from __future__ import annotations

from amqp import exceptions, spec

from kq_transports.connection import DeclaredOtherwise, QueueMissing
from kq_transports.engine import EngineError, TooLarge


class Refused(EngineError, exceptions.ChannelError):  # type: ignore[misc]
    """The broker understood and said no; its own words tell why."""


class HeadersTooLarge(TooLarge):
    """A message's properties must fit one frame: the broker ends a connection on which a larger one comes."""

    def __init__(self, queue: str, size: int, room: int) -> None:
        EngineError.__init__(
            self,
            f"a message for {queue!r} has headers of {size:,} bytes, more than the {room:,} that RabbitMQ takes "
            "(its frame_max); send them in its body",
        )


def refusal(code: int, text: str, method: tuple[int, int]) -> EngineError:
    """Why the broker closed a channel: code and text are its own, method is what it did not like."""
    if code == 404:
        return QueueMissing(text)
    if code == 406 and method in (spec.Queue.Declare, spec.Exchange.Declare):
        return DeclaredOtherwise(f"{text}; delete it or use another name")
    return Refused(text)


def rejection(code: int, text: str, user: str, place: str) -> EngineError | None:
    """Why the broker let nobody in; None when that may pass. Holds no password."""
    if code == 403:
        return EngineError(f"RabbitMQ at {place} refuses user {user!r}: {text}; check user and password in the URL")
    if code == 530:
        return EngineError(
            f"RabbitMQ at {place} does not let user {user!r} in there: {text}; "
            "rabbitmqctl add_vhost and set_permissions let them in"
        )
    return None
