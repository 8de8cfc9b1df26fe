"""Rounds: what the control program does, over and over. Jobs run without it.

Who has the seat acts, the others wait for it to be free: it is a key of the state store that its holder renews. For
the moment in which two believe to have it, and for one that is killed halfway, each act is harmless when it is done
twice, and what people are told is claimed by compare and set.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from math import inf

import msgspec

from kq.app import App
from kq.clock import new_id
from kq.control import Control
from kq.control.bell import Bell
from kq.control.chronicle import Chronicle
from kq.control.sight import Health, Heartbeat, RunningJob
from kq.errors import BrokerError
from kq.events import Herald, Memory
from kq.handles.standing import read
from kq.state.store import StoreUnreachable, Write
from kq.units import format_duration
from kq.values.event import Event
from kq.values.record import SEAT, encode, overdue_key, worker_key

log = logging.getLogger("kq.control")

#: Leases after its last word at which a worker that answers nobody is out.
SILENT = 1.5
#: Seconds that it has to answer.
ANSWER = 1.0
#: The part of its limit after which a job is told to run long.
LONG = 0.8
#: Seconds that a dead worker is still listed, after it was retired.
LISTED = 3600.0


class Rounds:
    """Retires dead workers, tells of jobs that run long and of what was buried, finishes what others began.

    One at a time acts.

    on_seat: called whenever this one begins to act.
    """

    def __init__(self, app: App, on_seat: Callable[[], None] | None = None) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{new_id()[-8:]}"
        self.seated = False
        self._app = app
        self._on_seat = on_seat
        self._control = Control(app)
        self._chronicle = Chronicle()
        self._bell = Bell(app)
        kept = app.remembering
        self._memory = Herald(partial(Memory, app.store, float(kept.keep), kept.most)) if kept.keep else None

    def tick(self) -> float:
        """One round; returns seconds until the next. Raises BrokerError and StoreUnreachable; nothing is lost then."""
        was = self.seated
        try:
            self.seated = self._sit()
        except BaseException:
            self.seated = False
            raise
        if self.seated and not was and self._on_seat is not None:
            self._on_seat()
        pause = self._app.lease / 3
        if self.seated:
            beats = self._control.heartbeat_check()
            self._retire_dead(beats)
            self._finish_resuming()
            self._finish_acts()
            pause = min(pause, self._tell_long(beats))
            self._bell.ring(self._control.note_down(self._chronicle))
        return pause

    def close(self) -> None:
        """Leave the seat to another."""
        with suppress(StoreUnreachable):
            self._app.store.write([Write(SEAT, None, must=(SEAT, self._me))])
        if self._memory is not None:
            self._memory.close()
        self._control.close()

    @property
    def _me(self) -> bytes:
        return self.name.encode()

    def _sit(self) -> bool:
        """Take the seat, or keep it."""
        keep = self._app.lease
        renew = Write(SEAT, self._me, keep, must=(SEAT, self._me))
        return any(self._app.store.write([renew, Write(SEAT, self._me, keep, must=(SEAT, None))]))

    # Dead workers.

    def _retire_dead(self, beats: list[Heartbeat]) -> None:
        silent = [beat for beat in beats if _is_silent(beat)]
        if not silent:
            return
        # The state store may have been away while the worker went on: only who does not answer is dead.
        names = {beat.worker.name for beat in silent}
        names -= set(self._control.answering(names, ANSWER))
        for beat in self._control.heartbeat_check():
            if beat.worker.name in names and _is_silent(beat):
                self._retire(beat)

    def _retire(self, beat: Heartbeat) -> None:
        """End the lease of a dead worker where that was not noticed yet, and note that this was done."""
        worker = beat.worker
        try:
            self._control.expel(worker.name)
        except BrokerError as error:
            log.warning("%s is dead and could not be retired: %s", worker.name, error.message)
            return
        key = worker_key(worker.name)
        before = self._app.store.get([key])[0]
        retired = msgspec.structs.replace(worker, retired=self._app.store.now())
        if before is not None and self._app.store.write([Write(key, encode(retired), LISTED, must=(key, before))])[0]:
            held = ", ".join(f"{job.type} {job.id}" for job in worker.running) or "nothing that it told of"
            log.warning(
                "retired %s: dead, last beat %s ago; it ran %s", worker.name, format_duration(round(beat.age)), held
            )
            self._say(Event(event="retired", at=retired.retired, worker=worker.name, message=f"it ran {held}"))

    # Jobs that run long.

    def _tell_long(self, beats: list[Heartbeat]) -> float:
        """Tell of jobs that are about to reach their limit; returns seconds until the next of them may be."""
        if min(_seconds_left(beats), default=inf) <= 0:
            self._control.ping()  # it may have ended since its worker's last word
            beats = self._control.heartbeat_check()
            for beat, job in _running(beats):
                if _left(beat, job) <= 0 and self._app.store.add(overdue_key(job.id, job.since), b"1", 2 * job.limit):
                    self._tell(beat, job)
        return min((left for left in _seconds_left(beats) if left > 0), default=inf)

    def _tell(self, beat: Heartbeat, job: RunningJob) -> None:
        what, where = f"{job.type} {job.id}", beat.worker.name
        ran, limit = format_duration(job.seconds + beat.age), format_duration(job.limit)
        log.warning("overdue: %s has run for %s of at most %s on %s", what, ran, limit, where)
        seconds = round(job.seconds + beat.age, 3)
        at = beat.worker.beat + beat.age
        self._say(
            Event(event="overdue", at=at, job=job.id, type=job.type, queue=job.queue, worker=where, seconds=seconds)
        )

    def _say(self, event: Event) -> None:
        if self._memory is not None:
            self._memory.say([event])
        if self._app.herald.listened:
            self._app.herald.say([event])

    # What others began.

    def _finish_resuming(self) -> None:
        standing = read(self._app.store)
        for type in standing.resumed.keys() - standing.types.keys():
            back = self._control.finish_resume(type)
            if back:
                log.warning("put back %s parked jobs of %s, which somebody began to resume", back, type)

    def _finish_acts(self) -> None:
        for act in self._control.finish_acts():
            log.warning("finished what was begun and not ended: %s", act)


def _is_silent(beat: Heartbeat) -> bool:
    return beat.health is Health.DEAD and not beat.worker.retired and beat.age > SILENT * beat.worker.lease


def _running(beats: Sequence[Heartbeat]) -> Iterator[tuple[Heartbeat, RunningJob]]:
    for beat in beats:
        if beat.health is not Health.DEAD:
            yield from ((beat, job) for job in beat.worker.running if job.limit)


def _left(beat: Heartbeat, job: RunningJob) -> float:
    """Seconds until a job is told to run long."""
    return LONG * job.limit - job.seconds - beat.age


def _seconds_left(beats: Sequence[Heartbeat]) -> list[float]:
    return [_left(beat, job) for beat, job in _running(beats)]
