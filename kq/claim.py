"""Unique keys while their jobs are submitted (promise C11): claimed before the publish, confirmed after it.

A claim that is neither confirmed nor given up is that of a submit which still goes on, or whose producer died, or which
does not know whether its job was stored. Others wait until it is one or the other: nobody is given a handle to a job
that may never have been stored. A claim ends by itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from kq.errors import BrokerUnreachable
from kq.handle import Looks
from kq.job import Job
from kq.record import claim_key, unique_key
from kq.state.store import StoreUnreachable, Write

#: Seconds between two looks at a key that somebody else has claimed.
LOOK = 0.02


class Claims:
    """The unique keys of jobs that one submit is about. until: when that submit ends, by the monotonic clock."""

    def __init__(self, app: Looks, jobs: Sequence[Job[Any]], until: float) -> None:
        self._app = app
        self._until = until
        self._ours: dict[str, str] = {}  # unique keys and the jobs that hold them
        self._taken: set[str] = set()  # those that nobody held before
        #: For each job whose key another one has, the id of that one.
        self.held: dict[str, str] = {}
        try:
            for job in jobs:
                if job.settings.unique:
                    self._take(job.settings.unique, job.id)
        except StoreUnreachable as error:
            raise BrokerUnreachable(f"can't take a unique key: {error}; stored: no", stored="no") from error
        except BrokerUnreachable:
            self.give_up()
            raise

    def _take(self, key: str, job: str) -> None:
        while True:
            holder = self._ours[key] if key in self._ours else self._claim(key, job)
            if holder == job:
                self._ours[key] = job
                return
            if holder:
                self.held[job] = holder
                return
            if time.monotonic() + LOOK > self._until:
                why = f"another submit with the unique key {key!r} has not ended, or its producer died"
                raise BrokerUnreachable(f"{why}; stored: no", stored="no", fix="Submit it again in a few seconds.")
            time.sleep(LOOK)

    def _claim(self, key: str, job: str) -> str | None:
        """Who has key now; None when that is not decided yet."""
        unique, claim, mine = unique_key(key), claim_key(key), job.encode()
        # Until the answer to confirm() is surely over. The claim outlasts the key: one without it was confirmed.
        lasts = max(0.0, self._until - time.monotonic()) + self._app.store.timeout
        free, ours = (unique, None), (claim, mine)  # ours: an earlier submit of this job may have claimed it
        taken, _, renewed, _ = self._app.store.write(
            [
                Write(claim, mine, lasts + 1.0, must=free),
                Write(unique, mine, lasts, must=free),
                Write(unique, mine, lasts, must=ours),
                Write(claim, mine, lasts + 1.0, must=ours),
            ]
        )
        if taken:
            self._taken.add(key)
        if taken or renewed:
            return job
        holder, claimant = self._app.store.get([unique, claim])
        return None if holder is None or holder == claimant else holder.decode()

    def confirm(self) -> None:
        """The jobs are stored: hold their keys until they end."""
        writes: list[Write] = []
        for key, job in self._ours.items():
            unique, claim, mine = unique_key(key), claim_key(key), job.encode()
            writes += [Write(unique, mine, must=(unique, mine)), Write(claim, None, must=(claim, mine))]
        try:
            if writes:
                self._app.store.write(writes)
        except StoreUnreachable as error:
            message = f"the job is stored, but its unique key is not held for long: {error}; stored: yes"
            raise BrokerUnreachable(message, stored="yes", fix="Submit the same job again.") from error

    def give_up(self) -> None:
        """The jobs were surely not stored: let others have their keys, unless the time is over; then they end soon."""
        writes: list[Write] = []
        for key in self._taken:
            unique, claim, mine = unique_key(key), claim_key(key), self._ours[key].encode()
            writes += [Write(unique, None, must=(claim, mine)), Write(claim, None, must=(claim, mine))]
        try:
            if writes and time.monotonic() < self._until:
                self._app.store.write(writes)
        except StoreUnreachable:
            return  # they end by themselves
