"""Taking snapshots: one question to the broker and one to the state store, whatever waits there."""

from __future__ import annotations

import time
from collections import deque

from msgspec.structs import replace

from kq.app import App
from kq.broker import Load
from kq.clock import SYSTEM
from kq.control.chronicle import Chronicle
from kq.control.compose import FAMILIES, Earlier, Facts, compose, jobs_of
from kq.control.view import MOST, View
from kq.errors import BrokerError
from kq.state.store import Gathered, StoreUnreachable
from kq.values.snapshot import Snapshot
from kq.values.tally import MINUTE, Spread

#: Seconds between two looks that are remembered, so that it is known how many jobs came meanwhile.
PAUSE = 5.0


class Shots(View):
    """Takes snapshots."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self._looks: deque[Earlier] = deque()
        #: How long the broker took to answer, of all snapshots that were taken here.
        self.answers = Spread()

    def snapshot(self) -> Snapshot:
        """Everything at one moment: queues, workers, failures. As often as once a second, from one thread at a time.

        Where the broker or the state store does not answer, what it knows is left out, and the snapshot says so.
        Raises BrokerError when neither does.
        """
        began = time.monotonic()
        loads, broker = self._loads()
        took = time.monotonic() - began
        if loads is not None:
            self.answers.add(took)
        gathered, store = self._gathered()
        if broker is not None and gathered is None:
            raise broker
        return replace(
            compose(self._facts(loads, gathered)),
            url=self._app.address.redacted,
            transport=self._inspector.traits.name,
            broker="" if broker is None else broker.message,
            store="" if store is None else str(store),
            round_trip=None if loads is None else took,
        )

    def note_down(self, chronicle: Chronicle) -> Snapshot | None:
        """Let chronicle write down what it has to tell now, if the broker answers. Raises StoreUnreachable.

        Returns everything at that moment; None when it was not time, or the broker did not answer.
        """
        if not chronicle.is_due(self._app.store.now()):
            return None
        try:
            # In this order: what a worker says has left is not to be seen in its queue too, and counted twice.
            gathered = self._app.store.gather(FAMILIES, MOST)
            facts = self._facts(self._inspector.survey(), gathered)
            self._app.store.write(chronicle.writes(facts, self._inspector))
        except BrokerError:
            self._inspector.close()  # what is missing now is written down the next time
            return None
        return compose(facts)

    def _loads(self) -> tuple[dict[str, Load] | None, BrokerError | None]:
        try:
            return self._inspector.survey(), None
        except BrokerError as error:
            self._inspector.close()  # the next look is made on another connection
            return None, error

    def _gathered(self) -> tuple[Gathered | None, StoreUnreachable | None]:
        try:
            return self._app.store.gather(FAMILIES, MOST), None
        except StoreUnreachable as error:
            return None, error

    def _facts(self, loads: dict[str, Load] | None, gathered: Gathered | None) -> Facts:
        now = SYSTEM.now() if gathered is None else gathered.now
        found = None if gathered is None else dict(zip(FAMILIES, gathered.found, strict=True))
        declared = {job_type.settings.queue or "" for job_type in self._app.jobs.values()} - {""}
        return Facts(now, loads, found, declared, self._app.singletons, self._earlier(now, loads))

    def _earlier(self, now: float, loads: dict[str, Load] | None) -> Earlier:
        """The oldest look of the last minute. Remembers this one."""
        looks = self._looks
        while looks and now - looks[0].at > MINUTE:
            looks.popleft()
        if loads is not None and (not looks or now - looks[-1].at >= PAUSE):
            looks.append(Earlier(now, jobs_of(loads)))
        return looks[0] if looks else Earlier()
