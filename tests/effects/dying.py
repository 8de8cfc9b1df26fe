"""The contract's application, in a worker that dies while it tells that a job was cut off in the act.

At which call to state store or broker stands in a file; where there is none it lives. For `kq worker --no-control`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path

from kq.conformance.contract.jobs import app
from kq.values.outcome import CUT_OFF, Bury, FallBack, Retry, Verdict
from kq.worker.ends import Ends
from kq.worker.task import Task
from tests.control.hand import before_call

#: The environment variable that names the file.
STEP = "KQ_TEST_DIES_AT"

add_all = Ends.add_all


def add_and_die(ends: Ends, ended: Iterable[tuple[Task, Verdict]]) -> None:
    """What a worker does with ends; the first of a job that was cut off is the last that it lives to see."""
    ended = list(ended)
    add_all(ends, ended)
    step = Path(os.environ.get(STEP, ""))
    for _, verdict in ended:
        if step.is_file() and isinstance(verdict, Retry | Bury | FallBack) and verdict.how in CUT_OFF:
            Ends.add_all = add_all  # type: ignore[method-assign]
            before_call(app, int(step.read_text()), lambda: os.kill(os.getpid(), signal.SIGKILL), setattr)
            return


Ends.add_all = add_and_die  # type: ignore[method-assign, assignment]

__all__ = ["app"]
