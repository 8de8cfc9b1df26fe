"""Orders: what control tells workers and queues to do."""

from __future__ import annotations

from kq.control.view import View
from kq.handle import revoke


class Orders(View):
    """Tells workers and queues what to do."""

    def revoke(self, id: str) -> bool:
        """End a job that waits or is delayed (promise C10); False when it runs, ended, or is not known."""
        return any(revoke(id, queue.name, self._app.store, self._inspector, self._app.keep) for queue in self.queues())
