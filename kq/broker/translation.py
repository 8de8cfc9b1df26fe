"""What transports raise, in kq's words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from kombu.exceptions import ChannelError, OperationalError
from kombu.exceptions import ConnectionError as KombuConnectionError

from kq.errors import NO_BROKER, BrokerError, BrokerFull, BrokerUnreachable, LeaseLost, Stored, Unsupported
from kq.url import Address
from kq_transports import engine

CONNECTION_ERRORS: tuple[type[BaseException], ...] = (
    engine.Unreachable,
    engine.NotFound,
    OperationalError,
    KombuConnectionError,
    OSError,
)


@contextmanager
def translated(address: Address) -> Iterator[None]:
    """Turn what transports raise into kq's errors."""
    try:
        yield
    except engine.LeaseLost as error:
        raise LeaseLost(f"the lease at {address.redacted} is lost: {text_of(error)}") from error
    except engine.Unsupported as error:
        raise Unsupported(f"{address.redacted}: {text_of(error)}") from error
    except engine.Full as error:
        raise BrokerFull(f"{address.redacted} refuses to store more: {error}") from error
    except engine.Absent as error:
        fix = "kq dev, kq worker or the first submit makes one there; --url names another. Is this the right folder?"
        raise BrokerUnreachable(f"{NO_BROKER}: {error}", stored="no", fix=fix) from error
    except (engine.Unreachable, OperationalError, KombuConnectionError, OSError) as error:
        message = f"{address.redacted} does not answer: {text_of(error)}"
        raise BrokerUnreachable(message, stored=stored_by(error)) from error
    except (engine.EngineError, ChannelError) as error:
        raise BrokerError(f"{address.redacted}: {text_of(error)}") from error


def quietly(call: Callable[[], object]) -> None:
    """call(), whatever becomes of it: for ending what may be broken already."""
    with suppress(Exception):
        call()


def stored_by(error: BaseException) -> Stored:
    """Whether what failed with error may have been done all the same."""
    return "unknown" if getattr(error, "sent", True) else "no"


def text_of(error: BaseException) -> str:
    """What error says, on one line; its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
