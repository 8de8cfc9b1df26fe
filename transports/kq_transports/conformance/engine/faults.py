"""Every call may fail, before or after its effect: whatever a client does then, nothing is lost or doubled.

Part of EngineSuite. The client here does what kq does: it repeats what it said about publishing and settling,
and begins a new connection when it does not know what it was given.
"""

from __future__ import annotations

from itertools import count

import pytest

from kq_transports.conformance.engine.world import QUEUE, Connect, EngineWorld, done, message, messages, requires, take
from kq_transports.conformance.flaky import Flaky, Moment
from kq_transports.engine import Counts, Delivery, Engine, Message, Unreachable, Want

JOBS = 6


class Client:
    """Publishes jobs, does each and publishes its follow-up; meets one failure on its way."""

    def __init__(self, connect: Connect, fail_on: str, k: int, moment: Moment) -> None:
        self._connect = connect
        self.engine: Engine = Flaky(connect(), fail_on, k, moment)
        self.finished: list[str] = []

    @property
    def met_its_failure(self) -> bool:
        return not isinstance(self.engine, Flaky) or self.engine.broken

    def run(self) -> None:
        """All of it: jobs j0… are published two by two, each done and followed by one f."""
        for i in range(0, JOBS, 2):
            self._publish([message(f"j{i}"), message(f"j{i + 1}")])
        while got := self._reserve():
            for delivery in got:
                self._finish(delivery)

    def _publish(self, batch: list[Message]) -> None:
        try:
            self.engine.publish(batch)
        except Unreachable:
            self.engine.publish(batch)

    def _reserve(self) -> list[Delivery]:
        wants = [Want((QUEUE,), 4)]
        try:
            return self.engine.reserve(wants)
        except Unreachable:
            self.engine.close()
            self.engine = self._connect()
            return self.engine.reserve(wants)

    def _finish(self, delivery: Delivery) -> None:
        verdicts = done([delivery])
        follow_ups = messages(f"f{delivery.id[1:]}") if delivery.id.startswith("j") else []
        try:
            stale = self.engine.settle(verdicts, follow_ups)
        except Unreachable:
            self.engine.settle(verdicts, follow_ups)  # stale when the first one was carried out
            stale = []
        assert not stale
        self.finished.append(delivery.id)


class Faults(EngineWorld):
    """The k-th call fails, for every k."""

    @pytest.mark.parametrize("moment", ["before", "after"])
    @pytest.mark.parametrize("verb", ["publish", "reserve", "settle"])
    def test_each_call_may_fail_and_every_job_is_done_once(
        self, connect: Connect, engine: Engine, verb: str, moment: Moment
    ) -> None:
        requires(engine.traits, "indexed")
        expected = sorted(f"{letter}{i}" for letter in "jf" for i in range(JOBS))
        for k in count(1):
            client = Client(connect, verb, k, moment)
            client.run()
            assert sorted(client.finished) == expected, f"after the failure of call {k}"
            assert engine.count(QUEUE) == Counts()
            client.engine.close()
            if not client.met_its_failure:
                break
        assert k > 3

    def test_a_failed_beat_does_no_harm(self, connect: Connect, engine: Engine) -> None:
        engine.publish(messages("a"))
        flaky = Flaky(connect(), "beat")
        held = take(flaky)
        with pytest.raises(Unreachable):
            flaky.beat()
        flaky.beat()
        assert flaky.settle(done(held)) == []
