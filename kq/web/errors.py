"""How an error is told to a browser or a program: a status, and the same words as on the command line."""

from __future__ import annotations

from kq.errors import (
    LOOK,
    BadArguments,
    BrokerError,
    Busy,
    Forbidden,
    KqError,
    MessageError,
    NotFound,
    NotRepaired,
    NotUnique,
)


def status_of(error: Exception) -> int:
    """The status that tells what kind of error this is."""
    table: list[tuple[type[Exception], int]] = [
        (Busy, 429),
        (Forbidden, 403),
        (NotFound, 404),
        (NotRepaired, 409),
        (NotUnique, 409),
        (BadArguments, 422),
        (MessageError, 422),
        (BrokerError, 503),
        (ConnectionError, 503),
        (KqError, 400),
    ]
    return next((status for kind, status in table if isinstance(error, kind)), 500)


def described(error: Exception) -> dict[str, str]:
    """An error as data; of what nobody expected no more than that it happened: the log has the rest."""
    if isinstance(error, KqError):
        told = {"code": error.code, "message": error.message, "fix": error.fix}
    elif isinstance(error, ConnectionError):
        told = {"code": "KQ501", "message": str(error), "fix": LOOK}
    else:
        told = {"code": "KQ001", "message": "this is a bug in kq", "fix": "The log of kq web has the traceback."}
    return {name: text for name, text in told.items() if text}
