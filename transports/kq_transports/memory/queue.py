"""A queue in memory: its messages in the order in which they are delivered.

Taking the next and adding the last are O(1) however many wait. Not safe for threads: the broker has the lock.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import attrgetter
from typing import Any

from kq_transports.engine import DEPTH, Arguments, Counts, Load, Message, Seen, State

PRIORITIES = 10


class Entry:
    """A stored message. place: its number in the order of submission, over all queues. since: when it is or was ready.

    state: "gone" when it was removed but still stands in a line. delivery: the number of its last delivery.
    """

    __slots__ = ("body", "count", "delivery", "due", "holder", "id", "place", "priority", "queue", "since", "state")

    def __init__(self, queue: Queue, message: Message, place: int) -> None:
        self.queue = queue
        self.id = message.id
        self.body = bytes(message.body)
        self.priority = message.priority
        self.place = place
        self.state: State | None = "ready"
        self.due: float | None = None
        self.since = 0.0
        self.count = 0
        self.holder = ""
        self.delivery = 0

    def seen(self) -> Seen:
        """As one who looks sees it."""
        state = self.state or "ready"
        return Seen(self.id, self.queue.name, self.body, self.priority, state, self.count, self.due, self.holder)


class Line:
    """Ready entries of one priority, by place.

    New ones come in order and stand in `fresh`; those that come back, or come late, in the heap `late`.
    Entries that were removed stay where they are until they are met.
    """

    __slots__ = ("_fresh", "_late")

    def __init__(self) -> None:
        self._fresh: deque[Entry] = deque()
        self._late: list[tuple[int, Entry]] = []

    def add(self, entry: Entry) -> None:
        if not self._fresh or self._fresh[-1].place < entry.place:
            self._fresh.append(entry)
        else:
            heapq.heappush(self._late, (entry.place, entry))

    def take(self, limit: int) -> list[Entry]:
        """Take up to limit entries off, first the one with the lowest place."""
        fresh, late = self._fresh, self._late
        taken: list[Entry] = []
        while len(taken) < limit and (fresh or late):
            if late and not (fresh and fresh[0].place < late[0][0]):
                _, entry = heapq.heappop(late)
            else:
                entry = fresh.popleft()
            if entry.state == "ready":
                taken.append(entry)
        return taken

    def first(self) -> Iterator[Entry]:
        """Some of the first entries, not in order; the very first is among them."""
        while self._fresh and self._fresh[0].state != "ready":
            self._fresh.popleft()
        while self._late and self._late[0][1].state != "ready":
            heapq.heappop(self._late)
        for entries in (self._fresh, (entry for _, entry in self._late)):
            yield from (entry for entry in islice(entries, DEPTH) if entry.state == "ready")

    def __iter__(self) -> Iterator[Entry]:
        late = (entry for _, entry in sorted(self._late))
        merged = heapq.merge(self._fresh, late, key=attrgetter("place"))
        return (entry for entry in merged if entry.state == "ready")


class Queue:
    """The messages of one queue by id, by order and by time.

    owner: the connection with which it ends, or "". seat: the connection that alone may consume it, or "".
    expires: seconds after its last use at which it ends, or None. used: when that was.
    """

    def __init__(self, name: str, arguments: Arguments) -> None:
        self.name = name
        self.arguments = dict(arguments)
        self.owner = ""
        self.seat = ""
        self.used = 0.0
        expires = _number(arguments.get("x-expires"))
        self.expires = None if expires is None else expires / 1000
        self.single = bool(arguments.get("x-single-active-consumer"))
        self.limit = _number(arguments.get("x-max-length"))
        self.entries: dict[str, Entry] = {}
        self._clear()

    def _clear(self) -> None:
        self._lines = [Line() for _ in range(PRIORITIES)]
        self._delayed: list[tuple[float, int, Entry]] = []
        self.ready = self.delayed = 0
        #: Entries that were removed and still stand in a line.
        self._gone = 0

    @property
    def due(self) -> float | None:
        """When the first delayed message becomes ready; None when there is none."""
        while self._delayed and self._delayed[0][2].state != "delayed":
            heapq.heappop(self._delayed)
            self._gone -= 1
        return self._delayed[0][0] if self._delayed else None

    def counts(self) -> Counts:
        return Counts(self.ready, self.delayed, len(self.entries) - self.ready - self.delayed)

    def load(self, now: float) -> Load:
        """Its counts, and the age of the oldest that is ready."""
        counts = self.counts()
        first = [entry.since for line in self._lines for entry in line.first()]
        oldest = max(0.0, now - min(first)) if first else 0.0
        return Load(counts.ready, counts.delayed, counts.held, oldest, self.single)

    def is_over(self, now: float) -> bool:
        """Whether nobody used it for as long as it was to live unused."""
        held = len(self.entries) - self.ready - self.delayed
        return self.expires is not None and not held and now >= self.used + self.expires

    def has_room(self, more: int) -> bool:
        """Whether so many more messages may wait here."""
        return self.limit is None or self.ready + self.delayed + more <= self.limit

    def add(self, entry: Entry, now: float, delay: float) -> None:
        """Store a new entry, ready after delay or at once."""
        self.entries[entry.id] = entry
        entry.since = due = now + delay
        if delay <= 0:
            self._line_up(entry)
        else:
            entry.state, entry.due = "delayed", due
            heapq.heappush(self._delayed, (due, entry.place, entry))
            self.delayed += 1

    def put_back(self, entry: Entry) -> None:
        """A held entry is ready again, at its old place."""
        entry.holder = ""
        self._line_up(entry)

    def end(self, entry: Entry) -> None:
        """A held entry is done."""
        del self.entries[entry.id]

    def promote(self, now: float) -> None:
        """What is due by now becomes ready."""
        due = list[Entry]()
        while self._delayed and self._delayed[0][0] <= now:
            *_, entry = heapq.heappop(self._delayed)
            if entry.state == "delayed":
                due.append(entry)
            else:
                self._gone -= 1
        self.delayed -= len(due)
        for entry in sorted(due, key=attrgetter("place")):  # so that most of them stand in `fresh`
            entry.due = None
            self._line_up(entry)

    def take(self, limit: int, holder: str, numbers: Iterator[int]) -> list[Entry]:
        """Give up to limit entries to holder, best first."""
        taken: list[Entry] = []
        for line in reversed(self._lines):
            if len(taken) == limit or len(taken) == self.ready:
                break
            taken += line.take(limit - len(taken))
        for entry in taken:
            entry.state, entry.holder, entry.delivery = "held", holder, next(numbers)
            entry.count += 1
        self.ready -= len(taken)
        return taken

    def waiting(self, id: str, body: bytes) -> Entry | None:
        """The message of that id if it waits and has that body."""
        entry = self.entries.get(id)
        return entry if entry is not None and entry.state != "held" and entry.body == body else None

    def remove(self, ids: Iterable[str]) -> list[str]:
        """Take those that wait out for good."""
        removed = []
        for id in ids:
            entry = self.entries.get(id)
            if entry is not None and entry.state != "held":
                self._strike(entry)
                removed.append(id)
        if self._gone > len(self.entries) + 100:
            self._tidy()
        return removed

    def purge(self) -> int:
        """Remove all that wait; returns how many that was."""
        number = self.ready + self.delayed
        self.entries = {id: entry for id, entry in self.entries.items() if entry.state == "held"}
        self._clear()
        return number

    def browse(self, state: State) -> Iterator[Entry]:
        """Entries of one state in the order in which they will be delivered, or were (held)."""
        if state == "ready":
            return (entry for line in reversed(self._lines) for entry in line)
        of_state = (entry for entry in self.entries.values() if entry.state == state)
        if state == "delayed":
            return iter(sorted(of_state, key=lambda entry: (entry.due, -entry.priority, entry.place)))
        return iter(sorted(of_state, key=lambda entry: entry.delivery))

    def _line_up(self, entry: Entry) -> None:
        entry.state = "ready"
        self._lines[entry.priority].add(entry)
        self.ready += 1

    def _strike(self, entry: Entry) -> None:
        if entry.state == "ready":
            self.ready -= 1
        else:
            self.delayed -= 1
        entry.state, entry.body = None, b""
        del self.entries[entry.id]
        self._gone += 1

    def _tidy(self) -> None:
        """Forget the removed ones, lest a queue that is never consumed grow for ever."""
        lines, delayed = self._lines, self._delayed
        self._clear()
        for line in lines:
            for entry in line:
                self._line_up(entry)
        self._delayed = [each for each in delayed if each[2].state == "delayed"]
        heapq.heapify(self._delayed)
        self.delayed = len(self._delayed)


def _number(value: Any) -> int | None:
    return None if value is None else int(value)
