"""A submit ends in time although nobody answers what address the broker has (promise C1)."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import kq

TIMEOUT = 0.6  # seconds


@pytest.fixture
def silent_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A name server that does not answer before the end of the test."""
    over, ask = threading.Event(), socket.getaddrinfo

    def wait(*args: Any, **options: Any) -> Any:
        if not options.get("flags", 0) & socket.AI_NUMERICHOST:
            over.wait(60)
        return ask(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    yield
    over.set()


@pytest.mark.usefixtures("silent_names")
@pytest.mark.parametrize("url", ["redis://broker.invalid/0", "rediss://broker.invalid/0", "amqp://broker.invalid//"])
def test_a_name_that_nobody_looks_up_holds_no_submit_for_longer_than_its_timeout(url: str) -> None:
    app = kq.App("shop", url, submit_timeout=TIMEOUT)
    began = time.monotonic()
    with pytest.raises(kq.BrokerUnreachable, match="could not submit") as caught:
        app.submit("resize")
    assert time.monotonic() - began < TIMEOUT + 3  # a busy machine; the look-up itself would take a minute
    assert caught.value.stored == "no"
    app.close()
