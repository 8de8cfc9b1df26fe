"""The other workers: asked for only when a job is here that this place failed (see kq.values.elsewhere)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from kq.state.store import Store
from kq.values.elsewhere import Place, failed_here, of_type, wait_for_another
from kq.values.reading import reader
from kq.values.record import lease_key, worker_key
from kq.worker.task import Task


class _Peer(msgspec.Struct):
    """What matters here of a worker's record."""

    name: str
    host: str
    queues: dict[str, int]
    stopping: bool = False


class Neighbours:
    """The workers that live beside this one, in the state store."""

    def __init__(self, store: Store, here: Place) -> None:
        self._store = store
        self._here = here

    def may_do_better(self, task: Task) -> bool:
        """Whether there is a reason to look for another worker. One that may have started elsewhere is left alone."""
        if task.delivery.redelivered or not task.head.history:
            return False
        return failed_here(of_type(task.head.history, task.head.type), self._here) is not None

    def better_for(self, tasks: Sequence[Task], now: float) -> Iterator[tuple[Task, float]]:
        """Those of tasks that a better place may take, and after how many seconds to offer them again."""
        peers = self._alive()
        for task in tasks:
            others = [Place(peer.name, peer.host) for peer in peers if task.delivery.queue in peer.queues]
            history = of_type(task.head.history, task.head.type)
            wait = wait_for_another(history, self._here, others, now)
            if wait is not None:
                yield task, wait

    def _alive(self) -> list[_Peer]:
        records = [_peer(value) for _, value in self._store.scan(worker_key(""))]
        peers = [peer for peer in records if peer and not peer.stopping and peer.name != self._here.worker]
        leases = self._store.get([lease_key(peer.name) for peer in peers]) if peers else []
        return [peer for peer, lease in zip(peers, leases, strict=True) if lease is not None]


_peer = reader(_Peer)
