"""Jobs that are here and have not begun: let in one by one, put in line, and given to executors.

A job whose message can't be used, whose deadline has passed, or that runs elsewhere ends here (see ends).
"""

from __future__ import annotations

import logging
from functools import partial

from msgspec.structs import replace

from kq.broker import Delivery
from kq.clock import new_id
from kq.errors import MessageError
from kq.handles.lock import Lock
from kq.handles.standing import NONE, Standing
from kq.values.elsewhere import Place
from kq.values.message import BODY_LIMIT, CONTENT_TYPE, Head, decode_head, only_id
from kq.values.outcome import Died, Drop, Expired, PassOn, Revoke, Rules, Unusable, Verdict
from kq.worker.child import Executor
from kq.worker.ends import Ends
from kq.worker.ground import Ground
from kq.worker.keys import Keys, pause
from kq.worker.line import Line
from kq.worker.neighbours import Neighbours
from kq.worker.pool import Pool
from kq.worker.routes import Routes
from kq.worker.starts import Starts
from kq.worker.task import Kind, Task

log = logging.getLogger("kq.worker")


class Lobby:
    """The jobs of one worker that wait. Where the state store must be asked about a job, it is asked for many."""

    def __init__(self, ground: Ground, pool: Pool, line: Line, ends: Ends) -> None:
        self._ground = ground
        self._clock, self._skew = ground.clock, ground.skew
        self._pool, self._line, self._ends = pool, line, ends
        self._standing: Standing = NONE
        self._ordered = False  # whether any order speaks of jobs
        self._no_kind = Kind("", Rules(), 0.0, ground.plan.keep)
        self._routes = Routes((), (), ())
        self._arrivals = 0
        self._arrived: list[Task] = []  # that may run elsewhere, too
        self._keyless: list[Task] = []  # that have a unique key to take
        self._suspects: list[Task] = []  # whose starts are to be counted beforehand
        self.join("")

    def join(self, worker: str) -> None:
        """Let jobs in in the name of that worker."""
        ground = self._ground
        self._starts = Starts(ground.store, worker, ground.indexed)
        self._neighbours = Neighbours(ground.store, Place(worker, ground.host))
        self._keys = Keys(ground.store, worker)

    def heed(self, standing: Standing) -> None:
        """From now on these orders stand, for those in line too, and for what executors were given ahead."""
        self._standing, self._ordered = standing, bool(standing)
        if self._ordered:
            for executor in list(self._pool.executors.values()):
                if any(self._fate(task) for task in executor.tasks.values() if not task.started):
                    self._pool.take_back(executor)
            for task in self._line.clear():
                self.line_up(task)

    @property
    def undecided(self) -> bool:
        """Whether it is not known of some whether they may start here."""
        return bool(self._arrived)

    @property
    def about_to_start(self) -> bool:
        """Whether count_starts() is to be called soon."""
        return bool(self._suspects)

    # Letting in.

    def arrive(self, delivery: Delivery) -> None:
        """A delivery came: find out what it is."""
        try:
            head = self._readable(delivery)
        except MessageError as error:
            log.warning("buried %s from %s: %s", delivery.id, delivery.queue, error.reason)
            head = _readable_part(delivery)
            self._ends.add_unread(Task(delivery, head, self._no_kind, head.counters), Unusable(error.reason))
            return
        self._arrivals += 1
        since = self._clock.monotonic()
        task = Task(delivery, head, self._pool.kinds[head.type], head.counters, self._arrivals, since)
        if head.deadline is not None and self._skew.now() > head.deadline:
            self._ends.add(task, self._ends.judged(task, Expired()))
        elif (
            task.suspect
            or head.again
            or not self._ground.indexed
            or (head.history and self._neighbours.may_do_better(task))
        ):
            self._arrived.append(task)
        else:
            self.line_up(task)

    def line_up(self, task: Task) -> None:
        """Put task in line, unless an order is against it: then it ends or goes back here."""
        if self._ordered and (fate := self._fate(task)):
            self._ends.add(task, fate)
        elif task.head.unique and not task.keyed:
            self._keyless.append(task)
        else:
            self._line.put(task)

    def _fate(self, task: Task) -> Verdict | None:
        """What orders make of a job that has not begun."""
        return self._standing.fate(task.head.id, task.head.type, task.delivery.queue)

    def admit(self) -> None:
        """Let those in line that may start here, and settle those that ended elsewhere."""
        if self._arrived:
            self._admit_suspects()
        if self._keyless:
            self._take_keys()

    @property
    def waiting(self) -> list[Task]:
        """All that are here and were given to nobody."""
        return [*self._line, *self._suspects, *self._arrived, *self._keyless]

    def clear(self) -> list[Task]:
        """Take out all that wait."""
        waiting = self.waiting
        for gathered in (self._suspects, self._arrived, self._keyless):
            gathered.clear()
        self._line.clear()
        return waiting

    def _readable(self, delivery: Delivery) -> Head:
        if len(delivery.body) > BODY_LIMIT:
            raise MessageError(f"the body has {len(delivery.body):,} bytes, more than {BODY_LIMIT:,}")
        head = decode_head(delivery.headers)
        only_id(delivery.id, delivery.headers)
        if delivery.content_type != CONTENT_TYPE:
            raise MessageError(f"the content type is {delivery.content_type!r}, not {CONTENT_TYPE}")
        if self._routes.entries is not self._pool.entries:
            self._routes = Routes(self._pool.entries, self._ground.plan.queues, self._ground.plan.accept)
        self._routes.check(head, delivery.queue)
        return head

    def _admit_suspects(self) -> None:
        self._pass_on()
        admitted = self._starts.admit(self._arrived)
        self._arrived = admitted.unclear
        for task in admitted.ready:
            self.line_up(task)
        for task, staged in admitted.copies:
            self._ends.add(task, Drop(staged))
        for task in admitted.lost:
            self._ends.add(task, self._ends.judged(task, Died("with its worker")))

    def _pass_on(self) -> None:
        """Leave jobs that bad storage ended here to better places.

        Before it is recorded that this worker speaks for them: else the message that is passed on looks like a copy.
        """
        doubtful = [task for task in self._arrived if self._neighbours.may_do_better(task)]
        if doubtful:
            for task, wait in self._neighbours.better_for(doubtful, self._clock.now()):
                self._arrived.remove(task)
                self._ends.add(task, PassOn(wait))

    def _take_keys(self) -> None:
        """Let those in line that have their unique keys; the others come back when they may have them, or never."""
        now = self._skew.now()
        taken = self._keys.take(self._keyless, now)
        self._keyless = []
        for task in taken.ready:
            task.keyed = True
            self.line_up(task)
        for task in taken.waiting:
            self._ends.add(task, PassOn(pause(task, now), f"waits for its turn of {task.head.unique!r}"))
        for task in taken.unclear:
            self._ends.add(task, PassOn(pause(task, now), f"waits to know who has {task.head.unique!r}"))
        for task, holder in taken.joined:
            self._ends.add(task, Revoke(f"job {holder} has its unique key {task.head.unique!r}"))

    # Giving out.

    def begin(self) -> None:
        """Give out what has just come, unless what came before it is undecided: else that would begin after it."""
        if not self._arrived:
            self.give_out()

    def give_out(self) -> None:
        """Give those in line to executors that have room. Suspects are kept back until their starts are counted.

        Until then the room is theirs: who would be taken for it besides would be counted too, and not start.
        """
        if self._suspects:
            return
        if self._line:
            self._fill(self._pool.rooms())
        if self._line and not self._suspects:  # else these would overtake them
            self._fill(self._pool.busy())

    def _fill(self, rooms: list[Executor]) -> None:
        while rooms and self._line:
            executor = rooms.pop()
            tasks = self._batch(executor, len(rooms) + 1)
            if not tasks:
                continue
            if tasks[0].suspect and not tasks[0].counted:
                self._suspects += tasks
                continue
            limit = self._line.limit(tasks[0])
            if tasks[0].poison:
                self._pool.isolate(executor, tasks[0], limit)
            else:
                self._pool.give(executor, tasks, limit)
            if self._pool.has_room(executor):
                rooms.append(executor)

    def count_starts(self) -> None:
        """Count the starts of suspects that are about to start, and of no other job (promise C7)."""
        if not self._suspects:
            return
        counted = self._starts.count(self._suspects)
        self._suspects = []
        for task in counted.ready:
            self.line_up(task)
        self._arrived += counted.unclear

    def _batch(self, executor: Executor, rooms: int) -> list[Task]:
        """Jobs for one executor: several when they are short, but no more than its share."""
        share = -(-len(self._line) // rooms)
        room = partial(self._pool.room, executor)
        return self._line.take(lambda first: min(share, self._pool.batch(first, executor)), room)


def _readable_part(delivery: Delivery) -> Head:
    """As much of a head as there is in a message that can't be used."""
    try:
        id = only_id(delivery.id, delivery.headers)
    except MessageError:
        id = ""  # which of the two jobs it was nobody knows: neither has ended
    try:
        head = decode_head(delivery.headers)
    except MessageError:
        lock = Lock.of(delivery.headers, id, delivery.queue)  # it holds its key although it can't be read
        key = lock.key if lock else None
        head = Head(id="?", type=str(delivery.headers.get("type") or ""), unique=key, unique_until="turn")
    return replace(head, id=id or new_id())
