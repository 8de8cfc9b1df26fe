"""The seam: what a broker must do to carry jobs, and all that a new transport writes.

An Engine is one connection to one broker, and all that is delivered through it is held
under one lease. `channel.py` turns any Engine into a Kombu transport. Time is the
broker's, in seconds since the epoch; an Engine never reads the clock of its client to
decide about a lease or a delay. Durations are float seconds.

The state of a message is kept in the broker at every instant: ready, delayed, or held by
one living lease. It is never only on a wire or in a client's memory.
"""

from __future__ import annotations

import math
import os
import select
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

#: What is done in the step of a publish by somebody who keeps other things in the same place; see that place's engine.
Rider: TypeAlias = Any

Arguments: TypeAlias = Mapping[str, object]
State: TypeAlias = Literal["ready", "delayed", "held"]


class EngineError(Exception):
    """The broker cannot do what was asked; the message names the thing and the next step."""


class Unreachable(EngineError, ConnectionError):
    """The broker did not answer in time.

    sent: False when nothing can have happened: nothing left this process, or it was undone with its transaction.
    True when the request may have been carried out and only its answer was lost.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class Absent(Unreachable):
    """There is no broker at this address yet, and who only looks creates none."""

    def __init__(self, message: str) -> None:
        super().__init__(message, sent=False)


class LeaseLost(EngineError, ConnectionError):
    """This connection was declared dead; what it held is delivered to others. End it."""


class Mismatch(EngineError):
    """The queue exists with other arguments than those declared now."""


class NotFound(EngineError):
    """There is no queue of that name."""


class NotEmpty(EngineError):
    """The queue has messages, so it was not deleted."""


class Full(EngineError):
    """The broker refuses to store more (memory, disk, queue length). Nothing was stored."""


class TooLarge(EngineError):
    """A message has more bytes than its publisher may store (Options.max_message_size). Nothing was stored."""

    def __init__(self, queue: str, size: int, limit: float) -> None:
        super().__init__(
            f"a message for {queue!r} has {size:,} bytes, more than the {limit:,} that max_message_size allows; "
            "keep it elsewhere and send its name"
        )


class Declined(EngineError):
    """The rider of a publish refused it. Nothing was stored, and the rider has done nothing."""


class Unsupported(EngineError):
    """A promise that this server cannot keep; the message says what to use instead."""


class Stale(EngineError):
    """Deliveries that were to end together with a publish are no longer this connection's.

    tags: their delivery tags. Nothing of the whole was done: the others are still to be settled.
    """

    def __init__(self, tags: Sequence[int]) -> None:
        super().__init__(f"deliveries {', '.join(map(str, tags))} belong to this connection no more; nothing was done")
        self.tags = tuple(tags)


class Traits(msgspec.Struct, frozen=True):
    """What a broker can do beyond the contract, and what it can't. Checked by the suite.

    durable: messages outlive every process (memory: False).
    shared: other processes see the same queues (memory: False).
    atomic: publishes and acks in one transaction happen together or not at all. Where
        False, the publishes are confirmed first and the acks follow.
    indexed: messages are known by id: a second publish of an id that is still in the
        queue stores nothing, and remove() is exact. Where False, who consumes must
        recognise a repeated or removed message by its id.
    carries: a publish carries a rider: what somebody else keeps in the same place is changed
        in the same step, or he refuses both.
    """

    name: str
    durable: bool = True
    shared: bool = True
    atomic: bool = True
    indexed: bool = True
    carries: bool = False


#: What the name of a lease ends with that has nothing but the seats of a connection that was expelled.
EXPELLED = ", expelled"

#: What the id of a message begins with that came without one, as names do that an AMQP server gives.
GIVEN = "amq.gen-"


def given_id() -> str:
    """An id for a message that came without one."""
    return GIVEN + os.urandom(12).hex()


class Message(msgspec.Struct, frozen=True):
    """One message on its way into a queue.

    id: names the message within its queue; publishing an id that is ready, delayed or
        held there stores nothing (promise C1).
    body: opaque bytes; the engine never looks inside.
    priority: 0 (low) to 9 (high).
    delay: seconds before it becomes ready, by the broker's clock; 0 means now.
    """

    id: str
    queue: str
    body: bytes
    priority: int = 0
    delay: float = 0.0


class Delivery(msgspec.Struct, frozen=True):
    """One handing-over of a message to this connection.

    receipt: names this delivery (not the message) when it is settled.
    count: how many times the message had been delivered before, as in x-delivery-count.
    """

    receipt: str
    id: str
    queue: str
    body: bytes
    priority: int
    count: int


class Action(Enum):
    """How one delivery ends."""

    DONE = "done"
    GIVE_BACK = "give back"  # ready again, at its old place, with its old priority


class Verdict(msgspec.Struct, frozen=True):
    """The end of one delivery."""

    receipt: str
    action: Action


class Want(msgspec.Struct, frozen=True):
    """A wish to take up to limit messages from queues, the first queue first."""

    queues: tuple[str, ...]
    limit: int


class Swap(msgspec.Struct, frozen=True):
    """A waiting message, and what is to take its place.

    body: all of it, as it was seen; a message whose body is another one by now stays.
    messages: published in the same step, to any queues; none of them, and it is removed.
    keeps_due: they become ready when it would have, whatever their own delay says.
    """

    id: str
    body: bytes
    messages: tuple[Message, ...] = ()
    keeps_due: bool = False

    def published(self, delay: float) -> tuple[Message, ...]:
        """What to publish. delay: seconds for which the message would still have waited."""
        return tuple(replace(message, delay=delay) for message in self.messages) if self.keeps_due else self.messages


class Binding(msgspec.Struct, frozen=True):
    """A queue's subscription to an exchange. key: routing key, or a topic pattern (* and #)."""

    queue: str
    key: str = ""


class Counts(msgspec.Struct, frozen=True):
    """How many messages of a queue are in each state."""

    ready: int = 0
    delayed: int = 0
    held: int = 0


#: Bytes that a message may have when it is published, unless a connection says otherwise: as in RabbitMQ from 4.0 on.
MESSAGE_LIMIT = 16 * 1024 * 1024

#: Of each priority of a queue, so many messages are looked at for the one that has been ready longest.
DEPTH = 32


class Load(msgspec.Struct, frozen=True):
    """What a look at all queues tells of one: its counts, and for how long its oldest message has been ready.

    oldest: seconds; 0.0 when none is ready, None when that can't be known now. Of a message that was delayed they begin
    when it was due; giving back changes nothing. Only the first DEPTH messages of each priority are looked at, so it
    may be less than the truth where many that were delayed come before older ones. single: one connection at a time
    gets anything of it (x-single-active-consumer). aside: entries among its messages that the engine could not read and
    set aside, so that the queue goes on; at most 1,000 are kept, the newest.
    """

    ready: int = 0
    delayed: int = 0
    held: int = 0
    oldest: float | None = 0.0
    single: bool = False
    aside: int = 0


class Seen(msgspec.Struct, frozen=True):
    """A message looked at without taking it.

    due: when it becomes ready, in seconds since the epoch (delayed), else None.
    holder: the connection that holds it (held), else "".
    """

    id: str
    queue: str
    body: bytes
    priority: int
    state: State
    count: int
    due: float | None = None
    holder: str = ""


class Lease(msgspec.Struct, frozen=True):
    """A connection as the broker sees it. until: when its lease ends, by the broker's clock."""

    connection: str
    until: float
    held: int


class Options(msgspec.Struct):
    """How a connection behaves; from Kombu's transport_options and heartbeat.

    name: shown as the holder and the name by which expel() ends it; unique per
        connection (a fresh one is made when it is empty).
    lease: seconds after the last beat at which the connection is dead.
    keep_alive: the engine renews its lease itself from a thread, for clients that asked
        for no heartbeat: their connection lives as long as their process, as an AMQP
        connection without heartbeats does.
    timeout: seconds that one verb may take before Unreachable.
    connect_timeout: the same for getting in, where that takes several answers; None: as one verb.
    look: the connection is for looking. It creates nothing (Absent where there is no broker yet) and goes on
        where nothing can be written, until the first verb that changes something.
    max_message_size: bytes that a message may have when it is published, its headers included.
    extra: the transport's own options, such as synchronous="normal".
    """

    name: str = ""
    lease: float = 15.0
    keep_alive: bool = False
    timeout: float = 5.0
    connect_timeout: float | None = None
    look: bool = False
    max_message_size: int = MESSAGE_LIMIT
    extra: dict[str, object] = msgspec.field(default_factory=dict)


def sleep_on(descriptors: Iterable[int], seconds: float | None) -> bool:
    """Sleep until one of descriptors is readable; False when seconds (None: no limit) passed first."""
    # Not select.select(): it refuses descriptors above 1023.
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if seconds is None else math.ceil(seconds * 1000)))


class Engine(ABC):
    """One connection to a broker.

    Used by one thread at a time; channel.py serialises. Every verb may raise Unreachable;
    those that speak of deliveries (reserve, settle, beat) raise LeaseLost once the broker
    has declared this connection dead, and for ever after. The lease belongs to the
    connection's name, not to a socket: an engine whose socket broke opens another one and
    goes on, as long as the lease lasts. A lease begins with the first reserve() or beat(), and with a declare() of
    what is mortal; another connection that had that name is dead from then on.
    """

    traits: Traits
    options: Options

    # The topology. All of it is stored in the broker and seen by every process.

    @abstractmethod
    def declare(self, queue: str, arguments: Arguments, *, mortal: bool = False) -> None:
        """Create queue unless it exists.

        Known arguments: x-single-active-consumer, x-max-length (Full when what is ready or delayed
        would be more), x-expires (ms for which nobody declared it, reserved of it or held anything of it; who sleeps
        for it, and looks when it is rung or something is due, keeps it).
        All are kept and compared; x-dead-letter-routing-key is for channel.py to heed, and there are ten priorities
        whatever x-max-priority says.
        mortal: the queue ends with this connection (AMQP's exclusive and auto-delete). When
            several have declared it mortal it ends with the last of them to do so; a queue
            that exists and lasts goes on lasting.
        Raises Mismatch when it exists with other arguments.
        """

    @abstractmethod
    def queues(self) -> dict[str, Arguments]:
        """Every queue and its arguments."""

    @abstractmethod
    def delete(self, queue: str, *, if_empty: bool = False) -> int:
        """End queue with all that is in it; returns how many messages went with it, 0 when there is no such queue.

        if_empty: raise NotEmpty when it has any message, be it ready, delayed or held.
        """

    @abstractmethod
    def purge(self, queue: str) -> int:
        """Remove what is ready or delayed in queue; returns how many messages that was, 0 of no queue."""

    @abstractmethod
    def declare_exchange(self, exchange: str, kind: str) -> None:
        """Create exchange of kind direct, topic or fanout unless it exists; Mismatch if of another kind."""

    @abstractmethod
    def delete_exchange(self, exchange: str) -> None:
        """End exchange and its bindings."""

    @abstractmethod
    def bind(self, exchange: str, binding: Binding) -> None:
        """Let queue receive what is published to exchange under key. May be repeated. NotFound when either is missing.

        The engine only keeps it: channel.py finds out by bindings() which queues a message goes to.
        """

    @abstractmethod
    def unbind(self, exchange: str, binding: Binding) -> None:
        """Undo bind()."""

    @abstractmethod
    def bindings(self, exchange: str) -> tuple[str, Sequence[Binding]]:
        """The exchange's kind and its bindings; NotFound when it was never declared."""

    # The life of a message.

    @abstractmethod
    def publish(self, messages: Sequence[Message], rider: Rider | None = None) -> None:
        """Store messages, all or none; stored (as durably as the broker does) on return.

        An id that its queue already has (ready, delayed or held) is skipped. Wakes waiting
        consumers. Raises Full, TooLarge (see fit()), or NotFound for a queue that was not declared: then nothing
        is stored.
        rider: done in the same step or, when it refuses (Declined), nothing is (traits.carries).
        """

    def fit(self, messages: Iterable[Message]) -> None:
        """For publish(): raise TooLarge when one of messages is. Here, so that it need not travel for that."""
        limit = self.options.max_message_size
        for message in messages:
            if len(message.body) > limit:
                raise TooLarge(message.queue, len(message.body), limit)

    @abstractmethod
    def reserve(self, wants: Sequence[Want], verdicts: Sequence[Verdict] = ()) -> list[Delivery]:
        """Settle verdicts, then take messages, best first: priority, then order of submission.

        One transaction for all of it, and one round trip where that can be. Verdicts that are stale are passed over, as
        are queues that do not exist. What dead connections held and what
        is due by now becomes ready first. Each want takes at most its limit, from its first queue
        before its second. A queue with x-single-active-consumer gives only to the one
        connection that has its seat (taken by the first to reserve, freed when its lease ends or would have).
        The empty list means that nothing is ready; `due` then says when to look again.
        """

    @abstractmethod
    def settle(self, verdicts: Sequence[Verdict], messages: Sequence[Message] = ()) -> list[str]:
        """End deliveries and publish follow-ups in one transaction; returns stale receipts.

        A receipt that this connection does not hold (any more) is stale: nothing happens to
        its message. With messages it is all or nothing: when any receipt is stale, no message is
        stored and no other delivery ends, so a settle that is repeated because its answer was
        lost does nothing twice. Without messages the receipts that are not stale are settled. An id
        among messages may be that of a delivery that ends DONE here: it is then stored anew. How large they are is
        not asked, for what is there must get away, with some words more about why.
        """

    @abstractmethod
    def release(self, queues: Iterable[str]) -> None:
        """Stop consuming queues: free their single-active-consumer seats, keep what is held."""

    @abstractmethod
    def beat(self) -> None:
        """Renew the lease to its full length from now."""

    def beat_beside(self) -> bool:
        """The same, called by one thread while another waits for the answer to a verb; False when that can't be.

        For brokers that are far away: else a lease could end because answers take long.
        """
        return False

    # Waiting.

    #: Seconds until the first delayed message of the queues of the last reserve() or arm()
    #: is due, or None when there is none. Never later than the truth; earlier when a lease
    #: may end before, as what a dead connection held is ready then.
    due: float | None = None

    @abstractmethod
    def arm(self, queues: Sequence[str]) -> int:
        """Ask to be woken; returns a descriptor that is readable when reserve() may find something.

        Call it when reserve() returned nothing, and sleep on the descriptor for at most `due` seconds.
        What was published between the reserve() and arm() makes it readable at once. Arming twice is
        harmless; the descriptor stays the same until the engine says otherwise by returning another.
        A safety net may make it readable at most once a second without cause.
        """

    def wait(self, queues: Sequence[str], timeout: float | None) -> bool:
        """Sleep until reserve() may find something in queues; False when timeout (seconds) passed first."""
        descriptor = self.arm(queues)
        until = min((x for x in (timeout, self.due) if x is not None), default=None)
        return sleep_on([descriptor], until) or (self.due is not None and until == self.due)

    @abstractmethod
    def close(self) -> None:
        """Give back all that is held, end the lease and what is mortal. May be repeated; never raises."""

    # Management: looking without taking.

    @abstractmethod
    def count(self, queue: str) -> Counts:
        """How many messages are in queue; NotFound when there is no such queue. O(1) or nearly."""

    @abstractmethod
    def survey(self) -> dict[str, Load]:
        """Every queue, as of one moment, in one round trip. It costs the same however much waits."""

    @abstractmethod
    def browse(self, queue: str, state: State = "ready", limit: int = 100, offset: int = 0) -> list[Seen]:
        """Messages of queue in the order in which they would be delivered (held: oldest first); none of no queue.

        What is due by now is ready, here as in count(), survey() and find(), whether or not anybody reserved since.
        """

    @abstractmethod
    def find(self, queue: str, ids: Sequence[str]) -> list[Seen]:
        """Those messages of queue that have one of ids, in any state."""

    @abstractmethod
    def remove(self, queue: str, ids: Sequence[str]) -> list[str]:
        """Take ready or delayed messages out for good; returns the ids that were removed.

        A message that is held is left alone: an id that is returned is never delivered again.
        """

    @abstractmethod
    def swap(self, queue: str, swaps: Sequence[Swap]) -> list[bool]:
        """Take messages off queue that are ready or delayed and still as they were seen, and publish others instead.

        Each of swaps is about another message. One transaction for all of them; True for each that was made, False
        for one whose message is gone, is held, or has another body. An id that is published may be that of
        the message which goes; else, as in publish(), one that its queue has is skipped. NotFound and Full: nothing
        was done.
        """

    @abstractmethod
    def leases(self) -> list[Lease]:
        """Every connection that has a lease, dead ones that nobody reclaimed yet included."""

    def facts(self) -> dict[str, str]:
        """What the server says of itself, for people: its version, what it keeps on disk, its limits.

        `kq doctor` shows each. It knows some by their names: file, a path, of which it says who else may read it; and
        auth, "no" where the server asks for no password; and unreadable, how many entries were set aside (Load.aside),
        where they are, and the commands that show and remove them: absent where there are none.
        """
        return {}

    @abstractmethod
    def expel(self, connection: str) -> bool:
        """End a connection from outside: its lease goes and its messages go back in one step.

        Its seats (x-single-active-consumer) are free when its lease would have ended: its owner may not know before.
        connection: its Options.name. False when there is none of that name.
        """
