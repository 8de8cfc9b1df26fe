"""Gauges: what must be zero, and is looked at when somebody asks."""

from __future__ import annotations

from dataclasses import dataclass

from kq.control.orders import Orders
from kq.control.sight import Health

#: So many held jobs of a queue are looked at.
MOST = 1000
#: Seconds for which a job may run past its limit: it is interrupted first, and killed when it ignores that.
KILLED_WITHIN = 1.0
#: Seconds by which clocks may differ.
SLACK = 1.0


@dataclass(frozen=True, slots=True)
class Gauges:
    """What must be empty, as ids of jobs.

    held_without_lease: delivered to a worker whose lease is over, and not ready again. past_limit: running for longer
    than they may, and not killed.
    """

    held_without_lease: tuple[str, ...] = ()
    past_limit: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.held_without_lease or self.past_limit)


class Gauged(Orders):
    """Looks whether what kq promises of leases and limits is so."""

    def health(self) -> Gauges:
        """The gauges as they are now."""
        self.ping()
        return Gauges(tuple(self._without_lease()), tuple(self._past_limit()))

    def _without_lease(self) -> list[str]:
        now = self._app.store.now()
        living = {lease.connection for lease in self._inspector.leases() if lease.until > now - SLACK}
        queues = [queue.name for queue in self.queues() if queue.held]
        held = [seen for queue in queues for seen in self._inspector.browse(queue, "held", MOST)]
        return [seen.id for seen in held if seen.holder not in living]

    def _past_limit(self) -> list[str]:
        return [
            job.id
            for beat in self.heartbeat_check()
            for job in beat.worker.running
            if beat.health is not Health.DEAD and 0 < job.limit < job.seconds + beat.age - KILLED_WITHIN
        ]
