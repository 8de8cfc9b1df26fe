"""The application of the bar: a mailer whose every step is told to a referee, who may kill it there.

Imported by workers as `kq.conformance.contract.post:app`. The steps are seen from outside: the state store is wrapped,
the mail server is the referee's own.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import msgspec

from kq.app import App
from kq.conformance.between import Between
from kq.conformance.contract.jobs import QUEUE
from kq.effects.ledger import Entry
from kq.jobtype import JobType
from kq.mail import mailer
from kq.state.store import Store, Write
from kq.values.policy import Fixed

WHERE = f"{__name__}:app"
#: The environment variables that say where the mail server is, and the referee.
SERVER, REFEREE = "KQ_CONTRACT_MAIL", "KQ_CONTRACT_REFEREE"
#: More than anything here sends.
MANY = 1_000_000


class Told(Between):
    """A store that tells the referee what is about to be asked of it, and what was."""

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        key = keys[0] if keys else ""
        with _told("look" if key.startswith("effect:") else "", key):
            return super().get(keys)

    def write(self, writes: Sequence[Write]) -> list[bool]:
        with _told(*_step(writes)):
            return super().write(writes)


class ToldApp(App):
    """An app with such a store."""

    def open_store(self, timeout: float, *, look: bool = False) -> Store:
        return Told(super().open_store(timeout, look=look))


def _step(writes: Sequence[Write]) -> tuple[str, str]:
    """What writes are in the life of a mail, and the key that says of which one; "" for what is of no interest."""
    for write in writes:
        if write.key.startswith("effect:"):
            if write.value is None:
                return "withdraw", write.key
            stage = msgspec.json.decode(write.value, type=Entry).stage
            return {"intended": "intend", "doubt": "doubt", "done": "record"}[stage], write.key
        if write.key.startswith("job:") and write.value is not None:
            return "result", write.key
    return "", ""


@contextmanager
def _told(step: str, key: str) -> Iterator[None]:
    if not step:
        yield
        return
    _tell(f"before {step}", key)
    yield
    _tell(f"after {step}", key)


def _tell(moment: str, key: str) -> None:
    """Tell the referee, and wait for leave to go on. Without one, go on."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", int(os.environ[REFEREE]))) as line:
        line.sendall(json.dumps([moment, key, os.getpid()]).encode() + b"\n")
        line.recv(1)


def mail_of(app: App) -> JobType[..., dict[str, str]]:
    """The mailer, registered with an app."""
    return mailer(
        app,
        os.environ[SERVER],
        sender="Bar <bar@example.org>",
        queue=os.environ[QUEUE],
        singleton=False,  # else a kill is followed by a rest
        retry_policy=Fixed(delay=0.1, retries=100),
        per_minute=MANY,
        per_recipient=MANY,
        per_family=MANY,
    )


# A kill that comes before the mail was begun costs the job a life, and one of them may be hit often.
app = ToldApp("contract", queue=os.environ.get(QUEUE, "contract"), max_lost=1000)
if SERVER in os.environ:
    mail = mail_of(app)
