"""Orders: what control tells workers, queues and jobs. They stand in the state store (`kq.handles.standing`)."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any

from kq.broker import PARKED
from kq.clock import SYSTEM, new_id
from kq.control import audit
from kq.control.parking import put_back
from kq.control.sight import WorkerInfo
from kq.control.size import merged, size_of
from kq.control.view import MOST, View
from kq.errors import BadArguments, BrokerError, NotFound
from kq.handles.act import Act
from kq.handles.revoking import revoke
from kq.handles.standing import EXECUTORS, QUEUES, Kind, Order, caller, decode_order, give, nudge, order_key, withdraw
from kq.state.store import StoreUnreachable, Write
from kq.values.job import ENDED, State
from kq.values.record import answer_key, lease_key

#: Seconds within which a worker that lives has read its orders (promise C15).
PATIENCE = 1.0
#: Seconds after which people are told that a worker has not heard what was ordered about it.
HEARS = 5.0


class Orders(View):
    """Tells workers, queues and jobs what to do."""

    def ping(self, timeout: float = PATIENCE) -> list[str]:
        """Let every worker read its orders and describe itself now; returns those that did within timeout seconds."""
        return self.answering([worker.name for worker in self.workers()], timeout)

    def answering(self, workers: Collection[str], timeout: float = PATIENCE) -> list[str]:
        """The same of these workers, who may be taken for dead because the state store has not heard of them."""
        token = new_id()
        self._inspector.nudge(token)
        return self._answers(token, workers, timeout)

    def freshen(self) -> None:
        """Let workers tell what they do now, where that can be had: a look must not fail of it."""
        if self.workers():
            with suppress(BrokerError, StoreUnreachable):
                self.ping()

    def pause(self, queue: str, *, reason: str = "", by: str = "") -> None:
        """Let no job of queue start until resume(); those that run go on. Submitting goes on too.

        by: who orders it, here as in what follows; user@host by default.
        """
        self._give("paused", Kind.PAUSE, queue, _order(by, reason))

    def resume(self, queue: str, *, reason: str = "", by: str = "") -> bool:
        """Undo pause(); False when the queue was not paused."""
        stood = self._app.store.get([order_key(Kind.PAUSE, queue)])[0] is not None
        if stood:
            self._leave_line("resumed", Kind.PAUSE, queue, _order(by, reason))
        withdraw(self._app.store, Kind.PAUSE, queue)
        nudge(self._inspector)
        return stood

    def pause_type(self, type: str, *, reason: str = "", by: str = "") -> None:
        """Let no job of a type start until resume_type(): those that would are parked, and others go past them."""
        # Both may stand for a moment, never neither: what is parked is always somebody's.
        self._give("paused", Kind.PAUSE_TYPE, type, _order(by, reason))
        withdraw(self._app.store, Kind.RESUME_TYPE, type)

    def resume_type(self, type: str, *, reason: str = "", by: str = "") -> int:
        """Undo pause_type(), and put back what was parked; returns how many jobs came back.

        When this ends halfway, the orders tell, and the control program finishes it.
        """
        order = _order(by, reason)
        self._leave_line("resumed", Kind.RESUME_TYPE, type, order)
        give(self._app.store, Kind.RESUME_TYPE, type, order)
        withdraw(self._app.store, Kind.PAUSE_TYPE, type)
        return self.finish_resume(type)

    def finish_resume(self, type: str) -> int:
        """The rest of resume_type(), which may be done by several and again."""
        names = {worker.name for worker in self.workers()}
        heard = names == set(self._answers(nudge(self._inspector), names, PATIENCE))
        back = self.put_back({type})
        if heard and not self._may_be_parked(type):  # who did not hear of it may still park a job
            withdraw(self._app.store, Kind.RESUME_TYPE, type)
        return back

    def put_back(self, types: Collection[str]) -> int:
        """Let parked jobs of types wait in their queues again, whatever is ordered; returns how many there were."""
        return sum(put_back(self._app, self._inspector, queue, types) for queue in self._parking_queues())

    def _may_be_parked(self, type: str) -> bool:
        """Whether jobs of a type are parked still, or somebody has some in his hands: who resumes another type, too."""
        parked = self._parking_queues()
        if any(self._inspector.count(queue).held for queue in parked):
            return True
        seen = (each for queue in parked for each in self._inspector.browse(queue, "ready", MOST))
        return any(each.headers.get("type") == type for each in seen)

    def _parking_queues(self) -> list[str]:
        return [queue for queue in self._inspector.queues() if queue.endswith(PARKED)]

    def retire(self, worker: str, *, now: bool = False, reason: str = "", by: str = "") -> bool:
        """Take a worker out of commission: it finishes what runs, gives back the rest and ends.

        now: do not wait for it: its lease ends, and its jobs go back in the same step. What it says later is refused.
        False when there is no such worker.
        """
        known = any(beat.worker.name == worker for beat in self.heartbeat_check())
        if known:
            self._give("retired", Kind.RETIRE, worker, _order(by, reason))
        if known and now:
            self.expel(worker)
        return known

    def set_worker(
        self,
        worker: str,
        *,
        concurrency: int | None = None,
        queues: Iterable[str] = (),
        reason: str = "",
        by: str = "",
    ) -> WorkerInfo:
        """Let a worker run so many jobs at a time, and take these queues, from now on; returns how it was before.

        queues: each `+NAME`, `+NAME:LIMIT` or `-NAME`. It stands as long as the worker lives, also when it begins anew
        with new code. What runs goes on; of a queue that is left, what was taken and has not begun goes back. Raises
        NotFound for a worker that does not live, BadArguments for what it can't be, and BrokerError for a queue that is
        declared otherwise than kq's are.
        """
        self.ping()
        before = next((each for each in self.workers() if each.name == worker), None)
        if before is None:
            raise NotFound(f"there is no live worker {worker!r}", fix="kq workers ls names them.")
        change = size_of(concurrency, queues)
        if before.pool == "process" and change.slots > EXECUTORS:
            raise BadArguments(f"{worker} has a process for each job", fix=f"Say 1 to {EXECUTORS:,}.")
        if len(before.queues.keys() | change.more.keys()) > QUEUES:
            raise BadArguments(f"{worker} would take too many queues", fix=f"{QUEUES:,} are the most.")
        for name in change.less:
            if name not in before.queues:
                raise BadArguments(f"{worker} does not take queue {name}", fix=f"It takes {', '.join(before.queues)}.")
        if not change.more and before.queues.keys() <= set(change.less):
            raise BadArguments(f"{worker} would take no queue", fix="kq workers retire ends it.")
        for wrong in self._inspector.misfits(change.more):
            raise wrong
        stands = decode_order(self._app.store.get([order_key(Kind.SET, worker)])[0]) or Order()
        order = merged(stands, change, _order(by, reason))
        self._give("set", Kind.SET, worker, order, change.told())
        return before

    def expel(self, worker: str) -> None:
        """End a worker's lease, here and at the broker (promise C4)."""
        self._app.store.write([Write(lease_key(worker), None)])
        self._inspector.expel(worker)

    def revoke(self, id: str, *, interrupt: bool = False, reason: str = "", by: str = "") -> bool:
        """End a job (promise C10): one that waits or is delayed never starts, one that runs does not run again.

        interrupt: one that runs is interrupted too, as at its timeout, and killed when it ignores that. False when it
        has ended or was buried, or is not known to a broker that knows all it has.
        """
        job = self.job(id)
        order = _order(by, reason, interrupt)
        if job is not None and job.state not in (State.BURIED, *ENDED):
            self._leave_line("revoked", Kind.REVOKE, id, order)
            return revoke(id, job.queue, order, self._app, self._inspector)
        if job is not None or self._inspector.traits.indexed:
            return False
        self._give("revoked", Kind.REVOKE, id, order)  # such a broker does not show what a frozen worker holds
        return True

    def _give(self, did: str, kind: Kind, about: str, order: Order, changed: tuple[str, ...] = ()) -> None:
        self._leave_line(did, kind, about, order, changed)
        give(self._app.store, kind, about, order)
        nudge(self._inspector)

    def _leave_line(self, did: str, kind: Kind, about: str, order: Order, changed: tuple[str, ...] = ()) -> None:
        """Leave a line in the audit, before it is done."""
        named: dict[str, Any] = {_ABOUT[kind]: about}
        act = Act(SYSTEM.now(), order.by, did, reason=order.reason, changed=changed, **named)
        audit.leave(self._app.store, act)

    def _answers(self, token: str, workers: Iterable[str], timeout: float) -> list[str]:
        """Those of workers that answer token within timeout seconds."""
        until = time.monotonic() + timeout
        return [
            worker
            for worker in workers
            if self._app.store.wait(answer_key(token, worker), max(0.0, until - time.monotonic())) is not None
        ]


def after_set(control: Orders, worker: str) -> tuple[WorkerInfo | None, bool]:
    """A worker as it is after set_worker(), if it lives, and whether it has heard of that within HEARS seconds."""
    heard = worker in control.answering([worker], HEARS)
    return next((each for each in control.workers() if each.name == worker), None), heard


#: The field of an Act that names what an order is about.
_ABOUT = {
    Kind.PAUSE: "queue",
    Kind.PAUSE_TYPE: "type",
    Kind.RESUME_TYPE: "type",
    Kind.REVOKE: "job",
    Kind.RETIRE: "worker",
    Kind.SET: "worker",
}


def _order(by: str, reason: str, interrupt: bool = False) -> Order:
    try:
        return Order(by=by or caller(), reason=reason, interrupt=interrupt)
    except ValueError as error:
        raise BadArguments(str(error), fix="Say it in fewer words.") from error
