"""Asking where a running job is. Its worker finds out, without stopping it."""

from __future__ import annotations

from kq.clock import new_id
from kq.control.orders import Orders
from kq.control.sight import JobInfo
from kq.control.view import known_job
from kq.errors import NotFound
from kq.handles.standing import Kind, Order, caller, give, nudge, withdraw
from kq.units import format_duration
from kq.values.job import State
from kq.values.stack import Stack, decode_stack, stack_key

#: Seconds that a worker has to answer, and for which the question stands after that.
PATIENCE, STANDS = 5.0, 5.0


class Stacked(Orders):
    """Asks where jobs are."""

    def stack(self, id: str, timeout: float = PATIENCE) -> Stack:
        """Where the job is that runs: the stack of its thread, or of its coroutine. Nothing is stopped.

        Where nobody answers within timeout seconds it has no frames, and a note with what is known. Raises NotFound for
        a job that does not run.
        """
        job = self._running_job(id)
        token = new_id()
        about, store = f"{job.worker}/{token}/{id}", self._app.store
        give(store, Kind.STACK, about, Order(by=caller()), timeout + STANDS)
        try:
            nudge(self._inspector)
            answer = decode_stack(store.wait(stack_key(token), timeout))
        finally:
            withdraw(store, Kind.STACK, about)
        if answer is not None and answer.type:
            return answer
        if answer is None:
            return Stack(id, job.type, job.worker, note=self._silence(job, timeout))
        return self._moved(id)

    def _running_job(self, id: str) -> JobInfo:
        job = known_job(self, id)
        if job.state is State.RESERVED:
            self.freshen()  # it may have begun since its worker's last word
            job = known_job(self, id)
        if job.state is not State.RUNNING:
            raise NotFound(f"job {id} is {job.state.value}: it does not run", fix=f"kq jobs why {id} says more.")
        return job

    def _moved(self, id: str) -> Stack:
        """Its worker says that it does not run there any more."""
        self.freshen()
        self._running_job(id)
        raise NotFound(f"job {id} began anew just now", fix="Ask once more.")

    def _silence(self, job: JobInfo, timeout: float) -> str:
        """What is known of a job whose worker did not answer."""
        said = f"{job.worker} did not answer within {format_duration(timeout)}"
        for beat in self.heartbeat_check():
            for running in beat.worker.running:
                if running.id == job.id and beat.worker.name == job.worker:
                    ran = format_duration(round(running.seconds + beat.age, 1))
                    last = format_duration(round(beat.age, 1))
                    return f"{said}: it is {beat.health.value}, and said {last} ago that the job runs, since {ran}"
        return said
