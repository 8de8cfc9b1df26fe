"""Storing messages where the broker goes wrong in the middle: what is said then, and what is said again."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence

import pytest

from kq.app import App
from kq.errors import BrokerUnreachable
from kq.values.message import Envelope
from kq_transports import memory
from kq_transports.engine import Declined, Engine, Message, Options, Rider, Unreachable
from kq_transports.memory import MemoryEngine

#: What the broker in memory does with one publish: it raises that, or stores.
Fate = Exception | None


@pytest.fixture
def app() -> Iterator[App]:
    app = App("publisher", f"memory://{uuid.uuid4().hex}", queue="q")
    yield app
    app.close()


def fated(monkeypatch: pytest.MonkeyPatch, *fates: Fate) -> list[Message]:
    """Let one publish after the other have its fate; all messages that were said, in order."""
    left, said = list(fates), list[Message]()
    open_engine = memory.Transport.open_engine

    def opened(transport: memory.Transport, options: Options) -> Engine:
        engine = open_engine(transport, options)

        def publish(messages: Sequence[Message], rider: Rider | None = None) -> None:
            said.extend(messages)
            if fate := left.pop(0):
                raise fate
            MemoryEngine.publish(engine, messages, rider)  # type: ignore[arg-type]

        engine.publish = publish  # type: ignore[method-assign]
        return engine

    monkeypatch.setattr(memory.Transport, "open_engine", opened)
    return said


def published(app: App) -> bool:
    return app.publisher.publish([Envelope(uuid.uuid4().hex, "q", b"{}", {"kq": 1})], time.monotonic() + 10)


def test_a_delay_begins_with_the_first_attempt_to_store_it(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    said = fated(monkeypatch, Unreachable("it has gone", sent=False), None)
    began = time.monotonic()
    app.publisher.publish([Envelope("1", "q", b"{}", {"kq": 1}, delay=60.0)], began + 10)
    first, second = said
    assert 60 - (time.monotonic() - began) < second.delay < first.delay < 60


@pytest.mark.parametrize("sent", [True, False])
def test_what_may_have_been_stored_before_says_so_of_itself_when_it_is_said_again(
    app: App, monkeypatch: pytest.MonkeyPatch, sent: bool
) -> None:
    """The first may have run and ended by then, and nobody would know the second again."""
    said = fated(monkeypatch, Unreachable("it has gone", sent=sent), None)
    assert published(app)
    assert [b'"again"' in each.body.partition(b"\n")[0] for each in said] == [False, sent]


@pytest.mark.parametrize("sent", [True, False])
def test_a_refusal_after_an_answer_that_was_lost_leaves_it_unknown_whether_it_is_stored(
    app: App, monkeypatch: pytest.MonkeyPatch, sent: bool
) -> None:
    fated(monkeypatch, Unreachable("it has gone", sent=sent), Declined("the key is another's"))
    if not sent:
        assert not published(app)
        return
    with pytest.raises(BrokerUnreachable, match="did not answer, and then: the key is another's") as raised:
        published(app)
    assert raised.value.stored == "unknown"
