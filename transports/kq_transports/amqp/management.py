"""Looking at the messages of RabbitMQ, and taking them out by id, with AMQP alone.

Who looks takes the messages for a moment, on a connection of its own; when it closes they are back at their
places, marked as redelivered. AMQP knows no ids: finding one reads the queue, up to MOST messages of it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from copy import copy
from hashlib import blake2b
from math import ceil
from typing import Any, TypeAlias, TypeVar

from amqp import spec
from kombu.transport import base
from msgspec.structs import replace

from kq_transports.amqp.channel import publishing
from kq_transports.amqp.connection import Connection
from kq_transports.amqp.errors import Refused
from kq_transports.amqp.frames import ack_frame, message_frames
from kq_transports.amqp.message import DUE_HEADER, Arrival, Message, properties_of
from kq_transports.amqp.outlet import Publishing
from kq_transports.amqp.presence import HOLDER, Answer, Held, Question, chosen, expel, roll_call
from kq_transports.amqp.publisher import Publisher
from kq_transports.amqp.question import Request, Side, ask_all
from kq_transports.amqp.survey import TURN, Surveyor, got, heads, turn
from kq_transports.amqp.transaction import Letter
from kq_transports.amqp.values import packed_properties
from kq_transports.engine import Arguments, Counts, EngineError, Full, Lease, Load, State, Unreachable
from kq_transports.envelope import COUNT_HEADER, DELAY_HEADER
from kq_transports.seen import Browsed, Swap

P = TypeVar("P")
T = TypeVar("T")
#: A message's id, and its stamp.
Key: TypeAlias = tuple[str, bytes]

#: So many messages of a queue are looked at, at most.
MOST = 10_000
#: So many are asked for at once.
PAGE = 500
#: Seconds; what waits no longer than this may come and expire between the count of a rung and the look at it.
SHORT = 0.08
#: Seconds in which a message that left one rung of its ladder is on the next, on a busy broker too.
CLIMB = 0.5
#: Seconds between two tries to be the one who looks.
PAUSE = 0.02


class Management(base.Management):
    """Looks at the broker of one connection."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self._surveyor = Surveyor()

    def queues(self) -> dict[str, Arguments]:
        """Every queue that was declared through this transport, and its arguments."""
        link = self._link
        return {name: arguments for name, arguments in link.registry.queues().items() if link.topology.has(name)}

    def count(self, queue: str) -> Counts:
        """How many messages of queue are ready, delayed and held. Those that a frozen process holds are not seen."""
        link = self._link
        ready = link.topology.find(queue).message_count
        held = sum(holder.held.get(queue, 0) for holder in self._ask(Question()).holders)
        return Counts(ready, link.delays.count(queue), held)

    def survey(self) -> dict[str, Load]:
        """Every queue that was declared through this transport; see amqp/survey.py for how new that is."""
        return self._surveyor.survey(self._link, self._ask, self._heads)

    def browse(self, queue: str, state: State = "ready", limit: int = 100, offset: int = 0) -> list[Browsed]:
        """Messages of queue in the order in which they will be delivered.

        Of what is delayed, MOST are looked at, and what goes from one rung of its ladder to the next in that moment may
        be overlooked. What a frozen process holds is not seen.
        """
        if state == "held":
            self._link.topology.find(queue)
            found = self._ask(Question(queue, offset + limit)).messages
            return [browsed(held.arrived, queue, "held", held.holder) for held in found][offset : offset + limit]
        if state == "ready":
            ready = self._look(queue, lambda peek: peek.ready(queue, min(MOST, offset + limit)))
            return [browsed(each, queue) for each in ready][offset:]
        delayed = [browsed(each, queue, "delayed") for each in self._look(queue, lambda peek: peek.delayed(queue))]
        return sorted(delayed, key=lambda each: each.due or 0)[offset : offset + limit]

    def find(self, queue: str, ids: Sequence[str]) -> list[Browsed]:
        """Those messages of queue that have one of ids, in any state; of one id that which is due first comes first.

        Looked for the way that they go, and what moved on meanwhile, or was given back, once more.
        """
        found, missed = list[Browsed](), set(ids)
        for look in (self._waiting, self._held, self._waiting):
            if missed:
                found += look(queue, missed)
                missed -= {each.id for each in found}
        return found

    def _waiting(self, queue: str, ids: Collection[str]) -> list[Browsed]:
        """Those of queue that are delayed or ready."""
        delayed, ready = self._look(queue, lambda peek: (peek.delayed(queue), peek.ready(queue, MOST)))
        seen = [browsed(each, queue, "delayed") for each in delayed] + [browsed(each, queue) for each in ready]
        return sorted((each for each in seen if each.id in ids), key=lambda each: each.due or 0)

    def _held(self, queue: str, ids: Collection[str]) -> list[Browsed]:
        """Those of queue that a connection holds."""
        held = self._ask(Question(queue, MOST, list(ids))).messages
        return [browsed(each.arrived, queue, "held", each.holder) for each in held]

    def remove(self, queue: str, ids: Sequence[str]) -> list[str]:
        """Take ready or delayed messages out for good; returns the ids of those that were."""
        wanted = set(ids)
        with self._looked(queue, lambda peek: peek.all(queue)) as (peek, arrivals):
            found = {each.tag: properties_of(each).get("message_id", "") for each in arrivals}
            gone = {tag: id for tag, id in found.items() if id in wanted}
            peek.end(list(gone))
        return list(dict.fromkeys(gone.values()))

    def swap(self, queue: str, swaps: Sequence[Swap]) -> list[bool]:
        """Take messages off queue that wait, as they were seen, and publish others instead.

        The broker does all of it at one word of ours: who dies before it has said that word has changed nothing.
        """
        self._check_room(swaps)
        made, messages, tags = list[bool](), list[Publishing](), list[int]()
        with self._looked(queue, lambda peek: _sought(peek, queue, swaps)) as (peek, found):
            for swap in swaps:
                same = found.pop((swap.seen.id, swap.seen.stamp), [])
                made.append(bool(same))
                if same:
                    tags += [arrived.tag for arrived in same]  # copies of it are one message
                    messages += [peek.prepared(letter) for letter in _letters(swap, same[0])]
            if tags:
                peek.exchange(tags, messages)
        return made

    def _check_room(self, swaps: Sequence[Swap]) -> None:
        """Raise NotFound or Full unless all can be stored. Of a transaction RabbitMQ would do the rest."""
        link = self._link
        added = Counter(queue for swap in swaps for queue, _ in swap.messages)
        if added:
            self._knock()
        waiting = {queue: link.topology.find(queue).message_count for queue in added}
        declared = link.registry.queues() if added else {}
        for queue, more in added.items():
            limit: Any = declared.get(queue, {}).get("x-max-length")
            if limit is not None and waiting[queue] + more > limit:
                raise Full(f"queue {queue!r} has x-max-length {limit} and is full; let it drain")

    def _knock(self) -> None:
        """Raise Full when the broker takes no publishes at present, which it tells to who publishes.

        From then on it does not hear him, not even that he is gone: what he had taken would be nobody's until the alarm
        is over. So it is tried on a line that holds nothing.
        """
        link = self._link
        line = Publisher(link.address, replace(link.options, name="", keep_alive=False))
        line.connect()
        try:
            for _ in range(2):  # the first one it takes, and then it says that it takes none
                nowhere = Publishing("", f"{TURN}nowhere", False, packed_properties({}), b"")
                line.publish([nowhere], time.monotonic() + link.options.timeout)
        except Unreachable as error:
            if line.blocked:
                raise Full(f"{line.peer} takes no messages: {line.blocked}; nothing was done") from error
            error.sent = False
            raise
        finally:
            line.close()

    def leases(self) -> list[Lease]:
        """Every connection that holds messages, or may, and answers."""
        now = time.time()
        return [
            Lease(holder.name, now + holder.lease, sum(holder.held.values()))
            for holder in self._ask(Question()).holders
        ]

    def expel(self, name: str) -> bool:
        """End a connection from outside; what it held goes back. False when there is none of that name.

        Raises EngineError when its process does not listen; the broker ends it when its lease is over.
        """
        link = self._link
        for one in link.siblings():
            if one.name == name:
                one.end()
                return True
        return expel(link, name)

    def facts(self) -> dict[str, str]:
        """What the server says of itself, for people."""
        told = self._link.server_properties
        return {name: str(told[name]) for name in ("product", "version", "platform", "cluster_name") if name in told}

    def get_bindings(self, exchange: str = "") -> list[dict[str, str]]:
        raise EngineError("RabbitMQ does not tell bindings by AMQP; use rabbitmqctl list_bindings")

    def _ask(self, question: Question) -> Answer:
        """What all connections say. Those of this process are asked in person: they may wait for this very thread."""
        link = self._link
        ours = link.siblings()
        said = roll_call(link.second(), question, {one.name for one in ours})
        held = [Held(one.name, arrived) for one in ours for arrived in chosen(question, one.holdings())]
        return Answer([one.holder() for one in ours] + said.holders, held + said.messages)

    @contextmanager
    def _peek(self, queue: str) -> Iterator[Peek]:
        """Something to look through; all it took is back when it is closed, but for what it ended.

        One at a time looks at a queue: the next would see nothing of what this one holds.
        """
        with self._apart() as own:
            _take_turn(own, queue)
            yield Peek(own)

    def _look(self, queue: str, see: Callable[[Peek], T]) -> T:
        """What see sees."""
        with self._looked(queue, see) as (_, seen):
            return seen

    def _looked(self, queue: str, see: Callable[[Peek], T]) -> AbstractContextManager[tuple[Peek, T]]:
        """Something to look through, and what see sees; see _peek()."""
        return self._at_last(lambda: self._peek(queue), see)

    @contextmanager
    def _at_last(self, opened: Callable[[], AbstractContextManager[P]], see: Callable[[P], T]) -> Iterator[tuple[P, T]]:
        """What opened opens, and what see sees through it.

        Opened again as long as a queue is being made or ended: RabbitMQ (4.0.5) hangs up on who asks it for a message.
        """
        until = time.monotonic() + self._link.options.timeout
        while True:
            with ExitStack() as stack:
                try:
                    through = stack.enter_context(opened())
                    seen = see(through)
                except Unreachable:
                    self._link.look()  # raises when it is not only that line which broke
                    if time.monotonic() > until:
                        raise
                else:
                    yield through, seen
                    return
            time.sleep(PAUSE)

    def _heads(self, queues: Sequence[str], single: Container[str]) -> dict[str, Arrival]:
        """The first message of each of queues; see heads()."""
        if not queues:
            return {}
        with self._at_last(self._apart, lambda own: heads(own, queues, single)) as (_, found):
            return found

    @contextmanager
    def _apart(self) -> Iterator[Connection]:
        """A connection of its own: when it ends, what it took is back."""
        link = self._link
        own = Connection(link.client, link.address, replace(link.options, name="", lease=60.0), link.queue_type)
        own.connect()
        try:
            yield own
        finally:
            own.close()

    @property
    def _link(self) -> Connection:
        link: Connection = self.transport.client.connection
        link.check()
        return link


class Peek(Side):
    """A channel that takes messages to look at them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        super().__init__(connection)

    def ready(self, queue: str, limit: int) -> list[Arrival]:
        """The first messages of queue."""
        number = min(limit, self._connection.topology.find(queue).message_count)
        return list(self._got(queue, number))

    def delayed(self, queue: str) -> list[Arrival]:
        """What waits for queue, the shortest waits first: a message that climbs meanwhile is met further up."""
        self._connection.topology.find(queue)
        begin, counts, found = time.monotonic(), self._connection.topology.counts, list[Arrival]()
        rungs = self._connection.delays.names(queue)
        counted, missed = counts(rungs), set[str]()
        # A broker that was just started counts none in its quorum queues: try each of them once.
        waiting = {rung: max(1, number) for rung, number in counted.items()}
        while waiting and len(found) < MOST:
            for rung, number in waiting.items():
                wanted = max(0, min(number, MOST - len(found)))
                got = list(self._got(rung, wanted))
                found += got
                if len(got) < wanted and (counted[rung] or rungs[rung] <= max(SHORT, time.monotonic() - begin)):
                    missed.add(rung)
            # Again, until nothing is left that moved on to a rung we had passed.
            counted = counts(rungs)
            waiting = {rung: number for rung, number in counted.items() if number}
        self._stir(missed)
        return found

    def _stir(self, rungs: Collection[str]) -> None:
        """Let the broker send on what has expired on rungs.

        Of what it finds expired when somebody gets it, RabbitMQ (4.0.5) sends nothing on before something else happens
        to its queue, as a subscription: in the millisecond in which a wait ends one get in six left a message behind.
        """
        if rungs:
            begin: list[Request] = [
                (spec.Basic.Consume, "BssbbbbF", (0, each, each, *(False,) * 4, {})) for each in rungs
            ]
            end: list[Request] = [(spec.Basic.Cancel, "sb", (each, False)) for each in rungs]
            ask_all(self, begin, [spec.Basic.ConsumeOk])
            ask_all(self, end, [spec.Basic.CancelOk])  # sent before the answers came it ends the channel

    def _on_basic_deliver(self, *arguments: Any) -> None:
        """What comes while rungs are stirred. It is back when this connection ends."""

    def all(self, queue: str) -> list[Arrival]:
        """What waits for queue, then what is ready in it."""
        return self.delayed(queue) + self.ready(queue, MOST)

    def end(self, tags: Sequence[int]) -> None:
        """Take these off their queues for good."""
        frames = b"".join(ack_frame(self.channel_id, tag, False) for tag in tags)
        self.link.write(frames, time.monotonic() + self.link.options.timeout, self)

    def prepared(self, letter: Letter) -> Publishing:
        """letter as it is sent; see publishing()."""
        return publishing(self._connection, letter, time.monotonic())

    def exchange(self, tags: Sequence[int], messages: Sequence[Publishing]) -> None:
        """Take these off their queues for good and publish messages, all of it or nothing."""
        self.send_method(spec.Tx.Select, wait=spec.Tx.SelectOk)
        limit = self._connection.frame_max
        frames = [
            message_frames(self.channel_id, each.exchange, each.key, False, each.properties, each.body, limit)
            for each in messages
        ]
        self.link.write(b"".join(frames), time.monotonic() + self.link.options.timeout, self)
        self.end(tags)
        self.send_method(spec.Tx.Commit, wait=spec.Tx.CommitOk)

    def _got(self, queue: str, number: int) -> Iterator[Arrival]:
        """The first messages of queue."""
        for begin in range(0, number, PAGE):
            yield from got(self, queue, min(PAGE, number - begin))


def _take_turn(connection: Connection, queue: str) -> None:
    """Wait until nobody else looks at queue, and let others wait until connection ends.

    An exclusive queue stands for it: the broker refuses it to others and ends it with its connection.
    """
    until = time.monotonic() + connection.options.timeout
    while True:
        try:
            turn(connection, queue)
            return
        except Refused as error:
            if time.monotonic() > until:
                raise EngineError(f"somebody else looks at queue {queue!r} and does not end; try again") from error
        time.sleep(PAUSE)


def _sought(peek: Peek, queue: str, swaps: Sequence[Swap]) -> dict[Key, list[Arrival]]:
    """All of queue, by id and stamp. Of swaps, what was delayed and is not due is looked for once more as it climbs."""
    found, until = dict[Key, list[Arrival]](), time.monotonic() + CLIMB
    arrivals = peek.all(queue)
    while True:
        for each in arrivals:
            seen = browsed(each, queue)
            found.setdefault((seen.id, seen.stamp), []).append(each)
        climbing = [swap.seen for swap in swaps if (swap.seen.due or 0) > time.time()]
        if time.monotonic() > until or all((seen.id, seen.stamp) in found for seen in climbing):
            return found
        time.sleep(PAUSE)
        arrivals = peek.delayed(queue)


def _letters(swap: Swap, arrived: Arrival) -> Iterator[Letter]:
    """What takes the place of arrived."""
    due = properties_of(arrived).get("application_headers", {}).get(DUE_HEADER, 0)
    for queue, message in swap.messages:
        if swap.keeps_due:
            message = copy(message)
            message.headers = {**message.headers, DELAY_HEADER: max(0, ceil(due - time.time() * 1000))}
        yield Letter(message, "", queue, True)


def _stamp(message: Message) -> bytes:
    """What tells a message from another of the same id. Its headers are without those of this delivery."""
    parts = message.headers, message.properties, message.content_type, message.content_encoding, message.body
    return blake2b(repr(parts).encode(), digest_size=16).digest()


def browsed(arrived: Arrival, queue: str, state: State = "ready", holder: str = "") -> Browsed:
    """What arrived, as somebody who looks at queue sees it."""
    message = Message(arrived)
    headers, properties = message.headers, message.properties
    due = None
    if state == "delayed":
        due = properties_of(arrived).get("application_headers", {}).get(DUE_HEADER, 0) / 1000
    headers.pop(HOLDER, None)
    count = headers.pop(COUNT_HEADER, 0)
    return Browsed(
        id=properties.get("message_id", ""),
        queue=queue,
        body=message.body,
        headers=headers,
        properties=properties,
        content_type=message.content_type or "",
        content_encoding=message.content_encoding or "",
        priority=properties.get("priority", 0),
        state=state,
        count=0 if state == "delayed" else count,
        due=due,
        holder=holder,
        stamp=_stamp(message),
    )
