"""The Redis engine: queues in a Redis ≥ 6.2 (or Valkey), and the Kombu transports over it.

Each verb is one Lua script (lua/<verb>.lua; lua/parts/keys.lua draws the keys), so it happens
wholly or not at all, and time is the server's. As durable as the server is set up to be.

Two sockets: one for the verbs, one asleep in BLPOP while there is nothing to do; and a third for a
beat while a verb waits long for its answer. A socket that breaks is replaced and the lease goes on:
what an answer that got lost had carried is given back, and a settle that is repeated gets its first
answer. One core of Redis carries about 100 000 jobs a second so, through their whole life.
"""

from __future__ import annotations

import functools
import json
import os
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.resources import files
from math import ceil
from shlex import quote
from typing import TypeVar, cast

import redis

from kq_transports.engine import (
    DEPTH,
    EXPELLED,
    Action,
    Arguments,
    Binding,
    Counts,
    Declined,
    Delivery,
    Engine,
    EngineError,
    Full,
    Lease,
    LeaseLost,
    Load,
    Message,
    Mismatch,
    NotEmpty,
    NotFound,
    Options,
    Seen,
    State,
    Swap,
    Traits,
    Verdict,
    Want,
)
from kq_transports.redislink import Link, Passenger, Place, Refused, Reply, Script
from kq_transports.redislink.bell import Bell
from kq_transports.redislink.facts import inspect_server
from kq_transports.thread import begin
from kq_transports.transport import EngineTransport

T = TypeVar("T")

MICRO = 1_000_000  # Lua reckons in microseconds
PORT = 6379
DIGITS = 28  # of an id that is kept as half as many bytes
TEXT = b"\x10"  # what begins with this or more is an id as it is
FACTS = 10  # queues with unreadable entries that facts() names
ROUNDS = 60.0  # seconds that a verb may take that is called until its work is done
ZERO = ord("0")  # a ticket begins with the digit of the priority


def _load() -> dict[str, Script]:
    """The verbs. The first line of each names the parts that stand before it."""
    folder = files("kq_transports") / "lua"
    scripts = {}
    for file in folder.iterdir():
        name, dot, _ = file.name.partition(".lua")
        if dot:
            text = file.read_text()
            parts = re.findall(r"\w+", text.splitlines()[0].removeprefix("-- parts:"))
            before = [(folder / "parts" / f"{part}.lua").read_text() for part in parts]
            scripts[name] = Script("\n".join([*before, text]), repeatable=name not in _ONCE)
    return scripts


@functools.cache
def _carrying(text: str) -> Script:
    """The verb publish_carrying with a passenger."""
    return Script(f"local agrees, act = (function(told)\n{text}\nend)(ARGV[2])\n{_SCRIPTS['publish_carrying'].text}")


#: Verbs that return what they did, which a repeat would not know.
_ONCE = frozenset({"delete", "purge", "remove", "swap", "expel"})
_SCRIPTS = _load()


TRAITS = Traits("redis", carries=True)


class RedisEngine(Engine):
    """Queues in the Redis at place."""

    traits = TRAITS

    def __init__(self, place: Place, options: Options | None = None) -> None:
        self.options = options or Options()
        self.options.name = self.options.name or f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"
        # One name may come back; what belongs to its former life must not be taken for ours.
        self._connection = f"{self.options.name}#{os.urandom(4).hex()}"
        self._link = Link(place, self.options.timeout)
        self._bell = Bell(place, self.options.timeout)
        self._beside, self._beating = Link(place, self.options.timeout), threading.Lock()
        self._pulse: Pulse | None = None
        self._begun = self._lost = self._closed = False
        self._asked = False  # for a lease: one may have begun whose answer was lost
        self._seen = 0  # the highest number of a delivery that reached us
        self._settles = 0
        self._unanswered: tuple[str | bytes | int, ...] | None = None  # a settle, as sent
        self._watched: tuple[str, ...] = ()

    def open(self) -> None:
        """Get in now, and learn now what is wrong; the first verb does it otherwise."""
        self._link.open()

    # The topology.

    def declare(self, queue: str, arguments: Arguments, *, mortal: bool = False) -> None:
        existing = self._run(
            "declare",
            queue,
            _canonical(arguments),
            "1" if arguments.get("x-single-active-consumer") else "",
            _number(arguments, "x-max-length"),
            _number(arguments, "x-expires", 1000),
            self._connection if mortal else "",
            self._lease_to_begin() if mortal else "",
        )
        if existing != 1:
            there = self._link.read(bytes.decode, existing)
            raise Mismatch(
                f"queue {queue!r} exists with arguments {there}, not {_canonical(arguments)}; "
                "delete it or use another name"
            )
        if mortal:
            self._begin()

    def queues(self) -> dict[str, Arguments]:
        return self._read(
            lambda reply: {name.decode(): json.loads(arguments) for name, arguments in _grouped(reply, 2)}, "queues"
        )

    def delete(self, queue: str, *, if_empty: bool = False) -> int:
        removed = self._read(_integer, "delete", queue, int(if_empty))
        if removed < 0:
            raise NotEmpty(f"queue {queue!r} has messages")
        return removed

    def purge(self, queue: str) -> int:
        return self._read(_integer, "purge", queue)

    def declare_exchange(self, exchange: str, kind: str) -> None:
        existing = self._read(bytes.decode, "declare_exchange", exchange, kind)
        if existing != kind:
            raise Mismatch(f"exchange {exchange!r} exists with kind {existing}, not {kind}")

    def delete_exchange(self, exchange: str) -> None:
        self._run("delete_exchange", exchange)

    def bind(self, exchange: str, binding: Binding) -> None:
        self._run("bind", exchange, binding.queue, binding.key)

    def unbind(self, exchange: str, binding: Binding) -> None:
        self._run("unbind", exchange, binding.queue, binding.key)

    def bindings(self, exchange: str) -> tuple[str, Sequence[Binding]]:
        return self._read(_bindings, "bindings", exchange)

    # The life of a message.

    def publish(self, messages: Sequence[Message], rider: Passenger | None = None) -> None:
        self.fit(messages)
        if messages and rider is not None:
            self._answer(self._link, _carrying(rider.text), rider.argument, *_flat(messages))
        elif messages:
            self._run("publish", *_flat(messages))

    def reserve(self, wants: Sequence[Want], verdicts: Sequence[Verdict] = ()) -> list[Delivery]:
        asleep = self._bell.asleep()
        asked: list[str | int] = []
        for want in wants:
            asked += want.limit, len(want.queues), *want.queues
        self._check_lease()
        reply = self._run(
            "reserve",
            self._connection,
            self._lease_to_begin(),
            self._seen,
            int(asleep),
            len(verdicts),
            *_told(verdicts),
            *asked,
        )
        self._begin()
        if asleep:
            self._bell.stirred()
        self._watched = tuple(dict.fromkeys(queue for want in wants for queue in want.queues))
        return self._link.read(self._taken, reply)

    def settle(self, verdicts: Sequence[Verdict], messages: Sequence[Message] = ()) -> list[str]:
        self._check_lease()
        if not self._begun:  # so nothing was ever delivered to us
            if not verdicts:
                self.publish(messages)
            return [verdict.receipt for verdict in verdicts]
        sent = (len(verdicts), *_told(verdicts), *_flat(messages))
        if sent != self._unanswered:
            self._settles += 1
        self._unanswered = sent
        stale = self._read(_texts, "settle", self._connection, self._seen, self._settles, *sent)
        self._unanswered = None
        return stale

    def release(self, queues: Iterable[str]) -> None:
        self._run("release", self._connection, *queues)

    def beat(self) -> None:
        self._check_lease()
        self._bell.check()
        self._run("beat", self._connection, self._length(), self._lease_to_begin())
        self._begin()

    def beat_beside(self) -> bool:
        if not self._begun:
            return False
        self._check_lease()
        with self._beating:
            self._answer(self._beside, _SCRIPTS["beat"], self._connection, self._length(), "")
        return True

    # Waiting.

    def arm(self, queues: Sequence[str]) -> int:
        watched = tuple(queues)
        if watched != self._watched:
            asleep = self._bell.asleep()
            due = self._run("look", self._connection, int(asleep), *watched)
            if asleep:
                self._bell.stirred()
            self._watched = watched
            self._link.read(self._note_due, due)
        return self._bell.arm((f"kq:c:{self._connection}:wake", *(f"kq:{{{queue}}}:wake" for queue in watched)))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._pulse is not None:
            self._pulse.stop()
        try:
            for _ in self._rounds():
                if not self._asked or self._lost or self._run("close", self._connection):
                    break
        except EngineError:
            pass  # the lease will end by itself
        self._bell.close()
        self._link.close()
        self._beside.close()

    # Management.

    def count(self, queue: str) -> Counts:
        return self._read(lambda reply: Counts(*map(_integer, reply)), "count", queue)

    def survey(self) -> dict[str, Load]:
        return self._read(_loads, "survey", DEPTH)

    def browse(self, queue: str, state: State = "ready", limit: int = 100, offset: int = 0) -> list[Seen]:
        return self._read(lambda reply: _seen(queue, reply), "browse", queue, state, limit, offset)

    def find(self, queue: str, ids: Sequence[str]) -> list[Seen]:
        return self._read(lambda reply: _seen(queue, reply), "find", queue, *map(_short, ids))

    def remove(self, queue: str, ids: Sequence[str]) -> list[str]:
        return self._read(lambda reply: [_whole(id) for id in reply], "remove", queue, *map(_short, ids))

    def swap(self, queue: str, swaps: Sequence[Swap]) -> list[bool]:
        asked: list[str | bytes | int] = []
        for each in swaps:
            asked += _short(each.id), each.body, int(each.keeps_due), len(each.messages)
        messages = [message for each in swaps for message in each.messages]
        return self._read(
            lambda reply: [bool(made) for made in reply], "swap", queue, len(swaps), *asked, *_flat(messages)
        )

    def leases(self) -> list[Lease]:
        return self._read(
            lambda reply: [
                Lease(name.decode(), float(until) / MICRO, held) for name, until, held in _grouped(reply, 3)
            ],
            "leases",
        )

    def expel(self, connection: str) -> bool:
        found = False
        for _ in self._rounds():
            done = self._read(_integer, "expel", connection, EXPELLED)
            found = found or done >= 0
            if done:
                break
        return found

    def facts(self) -> dict[str, str]:
        """How the server is set up, see inspect_server(), and where unreadable entries are."""
        found = [(f"kq:{{{name}}}:aside", load.aside) for name, load in self.survey().items() if load.aside]
        told = [
            f"{number:,} in {key} (look: redis-cli lrange {quote(key)} 0 -1; remove: redis-cli del {quote(key)})"
            for key, number in found[:FACTS]
        ]
        return {**inspect_server(self._link), **({"unreadable": ", ".join(told)} if told else {})}

    # What the verbs share.

    def _run(self, verb: str, *arguments: str | bytes | int) -> Reply:
        return self._answer(self._link, _SCRIPTS[verb], *arguments)

    def _read(self, read: Callable[[Reply], T], verb: str, *arguments: str | bytes | int) -> T:
        """read(what a verb answers); what that raises is an outage: the server sent what makes no sense."""
        return self._link.read(read, self._run(verb, *arguments))

    def _rounds(self) -> Iterator[None]:
        """Once for each call of a verb that does its work bit by bit. Raises Unreachable after a minute."""
        until = time.monotonic() + ROUNDS
        while time.monotonic() < until:
            yield
        raise self._link.senseless("it has always more to do")

    def _answer(self, link: Link, script: Script, *arguments: str | bytes | int) -> Reply:
        try:
            return link.run(script, *arguments)
        except Refused as refused:
            raise self._refusal(refused) from None

    def _refusal(self, refused: Refused) -> EngineError:
        match refused.reason:
            case "KQLOST":
                self._lost = True
                return self._lease_lost()
            case "KQNOTFOUND":
                return NotFound(f"there is no queue {refused.about!r}; declare it first")
            case "KQNOEXCHANGE":
                return NotFound(f"there is no exchange {refused.about!r}; declare it first")
            case "KQDECLINED":
                return Declined("nothing was stored: the rider refused")
            case "KQFULL":
                return Full(f"queue {refused.about!r} has reached its x-max-length")
        return EngineError(f"a script answers {refused}")

    def _check_lease(self) -> None:
        if self._lost:
            raise self._lease_lost()

    def _lease_lost(self) -> LeaseLost:
        return LeaseLost(
            f"the lease of connection {self.options.name} is over; what it held is delivered to others: "
            "end this connection and open another one"
        )

    def _length(self) -> int:
        return round(self.options.lease * MICRO)

    def _lease_to_begin(self) -> str:
        """What lets a script begin our lease; nothing once we had it, so that its loss is noticed."""
        self._asked = True
        return "" if self._begun else str(self._length())

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            if self.options.keep_alive:
                self._pulse = Pulse(self._link.place, self.options, self._connection)
                begin(self._pulse)
                weakref.finalize(self, self._pulse.stop)

    def _taken(self, reply: Reply) -> list[Delivery]:
        due, *blocks = reply
        self._note_due(due)
        return [delivery for block in blocks for delivery in self._deliveries(*block)]

    def _note_due(self, microseconds: int) -> None:
        self.due = None if microseconds < 0 else microseconds / MICRO

    def _deliveries(
        self, queue: bytes, first: int, ids: list[bytes], jobs: list[bytes], counts: list[bytes | None]
    ) -> Iterable[Delivery]:
        """The deliveries of one queue; jobs are tickets and bodies."""
        name = queue.decode()
        self._seen = max(self._seen, first + len(ids) - 1)
        known = [int(count or 0) for count in counts] or [0] * len(ids)
        for number, (id, job, count) in enumerate(zip(ids, jobs, known, strict=True), first):
            ticket, _, body = job.partition(b" ")
            yield Delivery(str(number), _whole(id), name, body, ticket[0] - ZERO, count)


class Transport(EngineTransport):
    """kq-redis://user:password@host:port/database.

    transport_options beyond those of every kq transport: socket, the path of a UNIX socket to use
    instead of host and port; with TLS redis-py's ssl_… options.
    """

    traits = TRAITS
    default_port = PORT  # type: ignore[assignment]
    driver_name = "redis"
    tls = False

    def driver_version(self) -> str:
        return redis.__version__

    def open_engine(self, options: Options) -> Engine:
        engine = RedisEngine(self._place(options), options)
        engine.open()
        return engine

    def _place(self, options: Options) -> Place:
        client, extra = self.client, dict(options.extra)
        path = str(extra.pop("socket", ""))
        tls = dict(client.ssl) if isinstance(client.ssl, dict) else {}
        tls |= {name: extra.pop(name) for name in list(extra) if name.startswith("ssl_")}
        if extra:
            raise EngineError(f"the Redis transport has no option {', '.join(sorted(extra))}")
        return Place(
            host=client.hostname or "localhost",
            port=client.port or PORT,
            db=self._database(),
            username=client.userid or None,
            password=client.password or None,
            socket=path,
            tls=tls if self.tls or client.ssl else None,
            connect_timeout=client.connect_timeout or None,
        )

    def _database(self) -> int:
        name = str(self.client.virtual_host or "").strip("/") or "0"
        if not name.isdecimal():
            raise EngineError(f"a Redis database is a number, not {name!r}; write for example kq-redis://host/0")
        return int(name)


class SSLTransport(Transport):
    """kq-rediss://…, the same over TLS."""

    tls = True


class Pulse(threading.Thread):
    """Beats for a connection whose client asked for no heartbeat, on a socket of its own."""

    def __init__(self, place: Place, options: Options, connection: str) -> None:
        super().__init__(name=f"kq-redis-pulse {options.name}", daemon=True)
        self._link = Link(place, options.timeout)
        self._lease = options.lease
        self._connection = connection
        self._stopped = threading.Event()

    def run(self) -> None:
        """Beat three times in a lease until the connection is over."""
        while not self._stopped.wait(self._lease / 3):
            try:
                self._link.run(_SCRIPTS["beat"], self._connection, round(self._lease * MICRO), "")
            except Refused:
                break  # the client's next verb finds out by itself
            except EngineError:
                continue  # the server is away; the lease may outlive that
        self._link.close()

    def stop(self) -> None:
        """Let it end, now or when its verb has been answered."""
        self._stopped.set()


def _integer(reply: Reply) -> int:
    if not isinstance(reply, int):
        raise TypeError(f"{type(reply).__name__} instead of a number")
    return reply


def _texts(reply: Reply) -> list[str]:
    return [text.decode() for text in reply]


def _bindings(reply: Reply) -> tuple[str, list[Binding]]:
    kind, *rest = reply
    return kind.decode(), [Binding(queue.decode(), key.decode()) for queue, key in _grouped(rest, 2)]


def _loads(reply: Reply) -> dict[str, Load]:
    return {
        name.decode(): Load(
            _integer(ready), _integer(delayed), _integer(held), age / MICRO, bool(single), _integer(aside)
        )
        for name, ready, delayed, held, age, single, aside in _grouped(reply, 7)
    }


def _told(verdicts: Iterable[Verdict]) -> list[str]:
    return [word for verdict in verdicts for word in (verdict.receipt, _ACTIONS[verdict.action])]


_ACTIONS = {Action.DONE: "done", Action.GIVE_BACK: "back"}


def _flat(messages: Iterable[Message]) -> list[str | bytes | int]:
    flat: list[str | bytes | int] = []
    for message in messages:
        flat += message.queue, _short(message.id), message.body, message.priority, ceil(message.delay * MICRO)
    return flat


def _short(id: str) -> bytes:
    """How an id is kept: 28 hex digits, as most are, as the bytes that they stand for. Text never begins like these."""
    if len(id) == DIGITS:
        try:
            short = bytes.fromhex(id)
        except ValueError:
            short = b""
        if b"\x00" < short[:1] < TEXT and short.hex() == id:
            return short
    text = id.encode()
    return text if text >= TEXT else b"\x00" + text


def _whole(short: bytes) -> str:
    """The id that is kept so."""
    if short >= TEXT:
        return short.decode()
    return short[1:].decode() if short[:1] == b"\x00" else short.hex()


def _seen(queue: str, reply: list[bytes]) -> list[Seen]:
    return [
        Seen(
            id=_whole(id),
            queue=queue,
            body=body.partition(b" ")[2],
            priority=body[0] - ZERO,
            state=cast(State, state.decode()),
            count=int(count),
            due=float(due) / MICRO if due else None,
            holder=holder.decode(),
        )
        for id, body, state, count, due, holder in _grouped(reply, 6)
    ]


def _grouped(reply: list[bytes], size: int) -> Iterable[tuple[Reply, ...]]:
    parts = iter(reply)
    return zip(*[parts] * size, strict=True)


def _canonical(arguments: Arguments) -> str:
    return json.dumps(arguments, sort_keys=True, default=str)


def _number(arguments: Arguments, name: str, factor: int = 1) -> str:
    value = arguments.get(name)
    return "" if value is None else str(int(cast(int, value)) * factor)
