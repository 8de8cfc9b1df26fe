"""connection.manager.swap(): one message takes the place of another.

Part of KombuSuite.
"""

from __future__ import annotations

import time
from typing import Any

import kombu
import pytest

from kq_transports.conformance.kombu.world import (
    Declare,
    Inbox,
    KombuWorld,
    bodies,
    publish,
)
from kq_transports.engine import Full, NotFound
from kq_transports.seen import Browsed, Swap


def seen(connection: kombu.Connection, queue: str, id: str) -> Browsed:
    """The one message of that id."""
    (found,) = connection.manager.find(queue, [id])
    browsed: Browsed = found
    return browsed


def letter(connection: kombu.Connection, queue: str, word: str, id: str, delay_ms: int = 0, **properties: Any) -> Any:
    """A message whose body is word, and the queue that it goes to."""
    headers = {"x-delay": delay_ms} if delay_ms else {}
    message = connection.default_channel.prepare_message(
        f'"{word}"', 0, "application/json", "utf-8", headers, {"message_id": id, "delivery_mode": 2, **properties}
    )
    return queue, message


class Swapping(KombuWorld):
    """Compare, take off, publish."""

    @pytest.fixture
    def aside(self, connection: kombu.Connection, declare: Declare) -> str:
        """A queue with three messages that were set aside."""
        queue = declare("aside")
        publish(connection, queue, *"abc", headers={"why": "x"})
        return queue

    def swap(self, connection: kombu.Connection, queue: str, *swaps: Swap) -> list[bool]:
        made: list[bool] = connection.manager.swap(queue, swaps)
        return made

    def test_messages_move_to_another_queue(self, connection: kombu.Connection, queue: str, aside: str) -> None:
        swaps = [Swap(seen(connection, aside, id), [letter(connection, queue, id, id)]) for id in "ac"]
        assert self.swap(connection, aside, *swaps) == [True, True]
        assert bodies(Inbox(connection, queue).take(2)) == "a c"
        assert bodies(Inbox(connection, aside).rest()) == "b"

    def test_a_message_changes_where_it_is(self, connection: kombu.Connection, aside: str) -> None:
        swap = Swap(seen(connection, aside, "b"), [letter(connection, aside, "mended", "b", priority=9)])
        assert self.swap(connection, aside, swap) == [True]
        assert bodies(Inbox(connection, aside).take(3)) == "mended a c"

    def test_nothing_instead_removes_it(self, connection: kombu.Connection, aside: str) -> None:
        assert self.swap(connection, aside, Swap(seen(connection, aside, "b"))) == [True]
        assert bodies(Inbox(connection, aside).rest()) == "a c"

    def test_what_has_changed_meanwhile_stays(
        self, connection: kombu.Connection, other: kombu.Connection, queue: str, aside: str
    ) -> None:
        before = seen(connection, aside, "b")
        self.swap(other, aside, Swap(before, [letter(other, aside, "b", "b")]))  # another header is a change too
        assert self.swap(connection, aside, Swap(before, [letter(connection, queue, "b", "b")])) == [False]
        assert sorted(each.id for each in connection.manager.find(aside, [*"abc"])) == ["a", "b", "c"]
        assert connection.manager.find(queue, ["b"]) == []

    def test_looking_changes_nothing_that_is_compared(self, connection: kombu.Connection, aside: str) -> None:
        stamps = {seen(connection, aside, "a").stamp for _ in range(3)}
        assert len(stamps) == 1
        assert stamps == {each.stamp for each in connection.manager.browse(aside) if each.id == "a"}

    def test_a_delayed_message_is_the_same_until_it_is_due(self, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, "a", headers={"x-delay": 500, "z": 1, "a": {"d": [2.5, None], "c": True}})
        stamps, until = set[bytes](), time.monotonic() + 20
        while connection.manager.count(queue).ready == 0 and time.monotonic() < until:
            stamps |= {each.stamp for each in connection.manager.find(queue, ["a"])}
        assert len(stamps | {seen(connection, queue, "a").stamp}) == 1

    def test_what_is_held_is_not_swapped(
        self, connection: kombu.Connection, other: kombu.Connection, queue: str, aside: str
    ) -> None:
        swap = Swap(seen(connection, aside, "a"), [letter(connection, queue, "a", "a")])
        held = Inbox(other, aside, prefetch=1).take()
        assert self.swap(connection, aside, swap) == [False]
        held[0].reject(requeue=True)

    def test_what_was_given_back_is_the_same_message(
        self, connection: kombu.Connection, other: kombu.Connection, queue: str, aside: str
    ) -> None:
        swap = Swap(seen(connection, aside, "a"), [letter(connection, queue, "a", "a")])
        inbox = Inbox(other, aside, prefetch=1)
        (held,) = inbox.take()
        inbox.consumer.cancel()
        held.reject(requeue=True)
        assert self.swap(connection, aside, swap) == [True]
        assert bodies(Inbox(connection, queue).take()) == "a"

    def test_a_delayed_message_is_made_ready(self, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, "a", headers={"x-delay": 600_000})
        swap = Swap(seen(connection, queue, "a"), [letter(connection, queue, "now", "a")])
        assert self.swap(connection, queue, swap) == [True]
        assert bodies(Inbox(connection, queue).take()) == "now"
        assert connection.manager.count(queue).delayed == 0

    def test_a_ready_message_is_delayed(self, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, "a")
        swap = Swap(seen(connection, queue, "a"), [letter(connection, queue, "later", "a", delay_ms=300)])
        began = time.monotonic()
        assert self.swap(connection, queue, swap) == [True]
        assert bodies(Inbox(connection, queue).take()) == "later"
        assert time.monotonic() - began >= 0.3

    def test_what_takes_its_place_may_keep_its_time(self, connection: kombu.Connection, queue: str) -> None:
        publish(connection, queue, "a", headers={"x-delay": 600_000})
        before = seen(connection, queue, "a")
        swap = Swap(before, [letter(connection, queue, "mended", "a")], keeps_due=True)
        assert self.swap(connection, queue, swap) == [True]
        after = seen(connection, queue, "a")
        assert (after.body, after.state) == (b'"mended"', "delayed")
        assert after.due == pytest.approx(before.due, abs=1.0)

    def test_nothing_is_done_when_a_queue_is_missing(
        self, connection: kombu.Connection, declare: Declare, aside: str
    ) -> None:
        with pytest.raises(NotFound):
            self.swap(connection, aside, Swap(seen(connection, aside, "a"), [letter(connection, "nowhere", "a", "a")]))
        assert bodies(Inbox(connection, aside).rest()) == "a b c"

    def test_nothing_is_done_when_a_queue_is_full(
        self, connection: kombu.Connection, declare: Declare, queue: str, aside: str
    ) -> None:
        small = declare("small", **{"x-max-length": 1})
        publish(connection, small, "there")
        swaps = [
            Swap(seen(connection, aside, "a"), [letter(connection, queue, "a", "a")]),
            Swap(seen(connection, aside, "b"), [letter(connection, small, "b", "b")]),
        ]
        with pytest.raises(Full):
            self.swap(connection, aside, *swaps)
        assert bodies(Inbox(connection, aside).rest()) == "a b c"
        assert Inbox(connection, queue).rest() == []
