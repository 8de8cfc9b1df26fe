"""An application for tests of observers that take their time: the other job types, and one who is slow to look."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kq.app import App
from kq.conformance.contract.jobs import QUEUE
from kq.effects.observer import Execution, Observer
from tests.worker.jobs import Odd

WHERE = f"{__name__}:app"
#: Seconds: longer than a short timeout, and shorter than the time until who does not listen is killed.
LOOK = 0.5


class Slow(Observer):
    """Looks for a while before each attempt."""

    @contextmanager
    def running(self, execution: Execution) -> Iterator[None]:
        time.sleep(LOOK)
        yield


if QUEUE in os.environ:
    app = App("contract", queue=os.environ[QUEUE])
    app.observe(Slow())
    jobs = Odd(app)
