"""Control: the view from above on workers, queues and jobs, and the hand that reaches in.

Nothing here is needed for jobs to run. `view` looks, `shots` at everything at once, `why` explains, `gauges` are what
must be zero, `repair` puts jobs right, `effects` decides about side effects, `orders` tells workers what to do; `sight`
is what is seen, `compose` puts it together. `rounds` and `program` do what is to be done without a human, `chronicle`
writes down what happened.
"""

from __future__ import annotations

from types import TracebackType

from kq.control.effects import Answer, Effects
from kq.control.gauges import Gauged, Gauges
from kq.control.hearing import Hears
from kq.control.repair import REPAIRABLE, Repaired
from kq.control.shots import Shots
from kq.control.sight import Failure, Health, Heartbeat, JobInfo, QueueInfo, RunningJob, Where, WorkerInfo
from kq.control.stack import Stacked
from kq.control.view import MOST
from kq.control.why import Reasons
from kq.effects.ledger import Entry
from kq.handles.act import Act

__all__ = [
    "MOST",
    "REPAIRABLE",
    "Act",
    "Answer",
    "Control",
    "Entry",
    "Failure",
    "Gauges",
    "Health",
    "Heartbeat",
    "JobInfo",
    "QueueInfo",
    "Repaired",
    "RunningJob",
    "Where",
    "WorkerInfo",
]


class Control(Effects, Gauged, Reasons, Shots, Hears, Stacked):
    """Looks at an app's broker and its workers. Close it, or use it as a context manager."""

    def __enter__(self) -> Control:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def apart(self) -> Control:
        """The same with connections of its own, for another thread."""
        return Control(self._app.apart() if self._inspector.traits.shared else self._app)

    def close(self) -> None:
        """End the connection to the broker."""
        self._inspector.close()
