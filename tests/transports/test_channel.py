"""The adapter of engines to Kombu: what is its own, seen through the memory engine."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import kombu
import pytest
from amqp import exceptions
from kombu.asynchronous import Hub

from kq_transports import memory
from kq_transports.conformance.flaky import Flaky, Moment
from kq_transports.engine import (
    Action,
    Binding,
    Counts,
    Delivery,
    Engine,
    LeaseLost,
    Message,
    Options,
    Stale,
    Unreachable,
    Verdict,
    Want,
)
from kq_transports.memory import MemoryBroker, MemoryEngine

DEADLINE = 10.0
NEVER = 10**9
#: Kombu types the channels of every connection as those of its own virtual transports.
Connection: TypeAlias = Any
Open = Callable[..., Connection]


@pytest.fixture
def broker() -> Iterator[str]:
    """The name of a broker of this test."""
    name = uuid.uuid4().hex
    yield name
    MemoryBroker.forget(name)


@pytest.fixture
def connect(broker: str) -> Iterator[Open]:
    """Open connections to it, closed after the test."""
    opened: list[Connection] = []

    def connect(**options: Any) -> Connection:
        opened.append(kombu.Connection(f"kq-memory://{broker}", **options))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture
def connection(connect: Open) -> Connection:
    """A connection, and a queue named q."""
    connection = connect()
    connection.default_channel.queue_declare("q", auto_delete=False)
    return connection


@pytest.fixture
def engine(broker: str, connection: Connection) -> Iterator[Engine]:
    """An engine of its own on the same broker, for looking behind Kombu's back."""
    engine = MemoryEngine(MemoryBroker.named(broker), Options("looker"))
    yield engine
    engine.close()


def put(channel: Any, *words: str, queue: str = "q", **properties: Any) -> None:
    for word in words:
        channel.basic_publish(channel.prepare_message(word, properties=properties or None), routing_key=queue)


def consume(channel: Any, queue: str = "q", **options: Any) -> list[Any]:
    """The messages that a new consumer of channel will be given."""
    got: list[Any] = []
    channel.basic_consume(queue, callback=got.append, **options)
    return got


def bodies(messages: list[Any]) -> str:
    return b" ".join(message.body for message in messages).decode()


def drained(connection: Connection) -> bool:
    """Deliver what is there now; False when nothing was."""
    try:
        connection.drain_events(timeout=0)
    except TimeoutError:
        return False
    return True


class TestSettling:
    def test_acks_of_a_batch_travel_together(self, connection: Connection, broker: str) -> None:
        with breaking(broker, "", k=NEVER) as (shaky, engines):
            channel = shaky.default_channel
            put(channel, *"abcdefgh")
            channel.basic_consume("q", callback=lambda message: message.ack())
            engines[0].calls = 0
            shaky.drain_events(timeout=1)
            assert engines[0].calls == 2  # one reserve, one settle
        assert connection.manager.count("q") == Counts()

    def test_an_ack_outside_of_a_callback_is_settled_at_once(self, connection: Connection, engine: Engine) -> None:
        channel = connection.default_channel
        put(channel, "a")
        got = consume(channel)
        connection.drain_events(timeout=1)
        got[0].ack()
        assert engine.count("q") == Counts()

    def test_the_ack_of_the_last_of_a_batch_does_not_wait_for_its_callback(
        self, connection: Connection, engine: Engine
    ) -> None:
        seen: list[Counts] = []

        def callback(message: Any) -> None:
            message.ack()
            seen.append(engine.count("q"))

        put(connection.default_channel, "a", "b")
        connection.default_channel.basic_consume("q", callback=callback)
        connection.drain_events(timeout=1)
        assert seen == [Counts(held=2), Counts()]

    def test_the_acks_of_a_slow_callback_do_not_wait_for_the_next_one(
        self, connection: Connection, engine: Engine
    ) -> None:
        seen: list[int] = []

        def callback(message: Any) -> None:
            seen.append(engine.count("q").held)
            busy(0.01)
            message.ack()

        put(connection.default_channel, "a", "b", "c")
        connection.default_channel.basic_consume("q", callback=callback)
        connection.drain_events(timeout=1)
        assert seen == [3, 2, 1]

    def test_what_a_callback_left_by_an_error_comes_with_the_next_drain(self, connection: Connection) -> None:
        channel = connection.default_channel
        got: list[Any] = []

        def callback(message: Any) -> None:
            got.append(message)
            if len(got) == 1:
                raise RuntimeError("as told")

        put(channel, "a", "b")
        channel.basic_consume("q", callback=callback)
        with pytest.raises(RuntimeError, match="as told"):
            connection.drain_events(timeout=1)
        connection.drain_events(timeout=1)
        assert bodies(got) == "a b"

    def test_what_waits_for_a_cancelled_consumer_goes_back_at_its_place(
        self, connection: Connection, engine: Engine
    ) -> None:
        channel = connection.default_channel
        put(channel, "a", "b", "c")
        channel.basic_consume("q", consumer_tag="mine", callback=lambda message: channel.basic_cancel("mine"))
        connection.drain_events(timeout=1)
        assert [bodies_of(engine, "held"), bodies_of(engine, "ready")] == [["a"], ["b", "c"]]

    def test_queues_of_one_channel_take_turns(self, connection: Connection) -> None:
        channel = connection.default_channel
        channel.queue_declare("other", auto_delete=False)
        channel.basic_qos(0, 1, False)
        put(channel, "q", "q")
        put(channel, "other", "other", queue="other")
        got, more = consume(channel), consume(channel, "other")
        order = []
        while drained(connection):
            (message,) = got + more
            order.append(bodies([message]))
            message.ack()
            got.clear()
            more.clear()
        assert sorted(order[:2]) == sorted(order[2:]) == ["other", "q"]

    def test_multiple_settles_all_before(self, connection: Connection, engine: Engine) -> None:
        channel = connection.default_channel
        put(channel, "a", "b", "c")
        got = consume(channel)
        connection.drain_events(timeout=1)
        got[1].ack(multiple=True)
        assert engine.count("q") == Counts(held=1)

    def test_a_tag_is_settled_once(self, connection: Connection) -> None:
        channel = connection.default_channel
        put(channel, "a")
        got = consume(channel)
        connection.drain_events(timeout=1)
        got[0].ack()
        with pytest.raises(exceptions.PreconditionFailed, match="unknown delivery tag 1"):
            channel.basic_ack(1)

    def test_an_unlimited_consumer_is_unlimited(self, connection: Connection) -> None:
        channel = connection.default_channel
        with kombu.Producer(channel, serializer="json").batch() as batch:
            for i in range(2500):
                batch.producer.publish(i, routing_key="q")
        got = consume(channel)
        while drained(connection):
            pass
        assert len(got) == 2500

    def test_an_ack_that_failed_may_be_repeated(self, connection: Connection, broker: str) -> None:
        with breaking(broker, "settle", moment="before") as (shaky, _):
            channel = shaky.default_channel
            put(channel, "a")
            got = consume(channel)
            shaky.drain_events(timeout=1)
            with pytest.raises(Unreachable):
                got[0].ack()
            got[0].ack()
        assert connection.manager.count("q") == Counts()


class TestTransactions:
    @pytest.fixture
    def connection(self, connection: Connection, broker: str) -> Iterator[Connection]:
        """One that may lose a delivery."""
        with kombu.Connection(hostname=broker, transport=ForgetfulTransport) as forgetful:
            yield forgetful

    def test_a_stale_delivery_undoes_the_group_and_is_named(self, connection: Connection, engine: Engine) -> None:
        channel, got = held_in_a_transaction(connection, "a", "b")
        connection.connection.engine.lose(0)
        for message in got:
            message.ack()
        put(channel, "follow-up")
        with pytest.raises(Stale) as caught:
            channel.tx_commit()
        assert caught.value.tags == (got[0].delivery_tag,)
        assert engine.count("q") == Counts(ready=1, held=1)
        channel.basic_ack(got[1].delivery_tag)
        put(channel, "follow-up")
        channel.tx_commit()
        assert engine.count("q") == Counts(ready=2)

    def test_a_stale_delivery_alone_is_told_and_the_others_end(self, connection: Connection, engine: Engine) -> None:
        channel, got = held_in_a_transaction(connection, "a", "b")
        connection.connection.engine.lose(0)
        for message in got:
            message.ack()
        channel.tx_commit()
        assert (channel.refused, engine.count("q")) == ([got[0].delivery_tag], Counts(ready=1))

    def test_a_commit_that_failed_may_be_said_again(self, connection: Connection, broker: str) -> None:
        with breaking(broker, "settle", moment="before") as (shaky, _):
            channel, got = held_in_a_transaction(shaky, "a")
            for attempt in (1, 2):
                channel.basic_ack(got[0].delivery_tag)
                put(channel, "follow-up")
                if attempt == 1:
                    with pytest.raises(Unreachable):
                        channel.tx_commit()
            channel.tx_commit()
        assert connection.manager.count("q") == Counts(ready=1)

    def test_credit_is_given_by_the_commit(self, connection: Connection) -> None:
        channel = connection.channel()
        channel.basic_qos(0, 1, False)
        channel.tx_select()
        put(connection.default_channel, "a", "b")
        got = consume(channel)
        connection.drain_events(timeout=1)
        got[0].ack()
        assert not drained(connection)
        channel.tx_commit()
        assert drained(connection)
        assert bodies(got) == "a b"

    def test_an_ack_twice_in_one_transaction_is_refused(self, connection: Connection) -> None:
        channel, got = held_in_a_transaction(connection, "a")
        got[0].ack()
        with pytest.raises(exceptions.PreconditionFailed):
            channel.basic_ack(got[0].delivery_tag)

    def test_a_commit_without_a_transaction_is_refused(self, connection: Connection) -> None:
        with pytest.raises(exceptions.PreconditionFailed, match="tx_select"):
            connection.default_channel.tx_commit()

    def test_a_message_without_ack_needs_no_commit(self, connection: Connection, engine: Engine) -> None:
        channel = connection.channel()
        channel.tx_select()
        put(connection.default_channel, "a")
        got = consume(channel, no_ack=True)
        connection.drain_events(timeout=1)
        assert (bodies(got), engine.count("q")) == ("a", Counts())

    def test_acking_what_needs_no_ack_does_no_harm(self, connection: Connection) -> None:
        put(connection.default_channel, "a")
        got = consume(connection.default_channel, no_ack=True)
        connection.drain_events(timeout=1)
        got[0].ack()

    def test_a_batch_of_the_producer_is_stored_at_its_end(self, connection: Connection, engine: Engine) -> None:
        producer = kombu.Producer(connection.default_channel, serializer="json")
        with producer.batch():
            for i in range(5):
                producer.publish(i, routing_key="q")
            assert engine.count("q") == Counts()
        assert engine.count("q") == Counts(ready=5)


class TestPublishing:
    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_a_publish_that_kombu_repeats_is_stored_once(
        self, connection: Connection, broker: str, moment: Moment
    ) -> None:
        with breaking(broker, "publish", moment=moment) as (shaky, engines):
            producer = kombu.Producer(shaky, serializer="json")
            producer.publish("a", routing_key="q", retry=True, retry_policy={"max_retries": 2, "interval_start": 0})
            assert engines[0].broken
        assert connection.manager.count("q") == Counts(ready=1)

    def test_a_priority_beyond_the_scale_is_the_nearest(self, connection: Connection) -> None:
        channel = connection.default_channel
        put(channel, "a", priority=-3)
        put(channel, "b", priority=12)
        assert [seen.priority for seen in connection.manager.browse("q")] == [9, 0]

    def test_what_no_client_of_ours_wrote_is_a_body_without_headers(
        self, connection: Connection, engine: Engine
    ) -> None:
        garbage = [b"", b"\n", b"no json\nbody", b'{"h": 5}\nbody', b"\xff\xfe\n", deep(100_000), deep(300)]
        engine.publish([Message(str(i), "q", body) for i, body in enumerate(garbage)])
        got = consume(connection.default_channel)
        connection.drain_events(timeout=1)
        assert [(m.body, m.headers, m.content_type) for m in got] == [(body, {}, None) for body in garbage]

    def test_a_header_that_is_no_json_is_an_error_in_the_publishers_line(self, connection: Connection) -> None:
        channel = connection.default_channel
        with pytest.raises(TypeError):
            channel.basic_publish(channel.prepare_message("a", headers={"x": object()}), routing_key="q")

    def test_compressed_bodies_come_out_as_they_went_in(self, connection: Connection) -> None:
        producer = kombu.Producer(connection.default_channel, serializer="json", compression="zlib")
        producer.publish({"a": 1}, routing_key="q")
        got: list[Any] = []
        with kombu.Consumer(
            connection.default_channel,
            [kombu.Queue("q", no_declare=True)],
            callbacks=[lambda body, _: got.append(body)],
        ):
            connection.drain_events(timeout=1)
        assert got == [{"a": 1}]

    def test_a_body_is_what_was_stored_until_a_consumer_asks_for_more(self, connection: Connection) -> None:
        channel = connection.default_channel
        message = channel.prepare_message("no gzip", headers={"compression": "application/x-gzip"})
        channel.basic_publish(message, routing_key="q")
        got = consume(channel)
        connection.drain_events(timeout=1)
        assert got[0].body == b"no gzip"
        assert channel.message_to_python(got[0]).errors

    def test_what_no_queue_wants_is_returned_when_it_is_mandatory(self, connection: Connection) -> None:
        channel = connection.default_channel
        channel.exchange_declare("topics", "topic")
        message = channel.prepare_message("a")
        with pytest.raises(exceptions.NotFound, match="no queue is bound"):
            channel.basic_publish(message, "topics", "a.b", mandatory=True)
        returned: list[Any] = []
        channel.events["basic_return"].add(lambda *what: returned.append(what[1:]))
        channel.basic_publish(message, "topics", "a.b", mandatory=True)
        assert returned == [("topics", "a.b", message)]

    def test_an_exchange_of_another_type_is_refused(self, connection: Connection) -> None:
        with pytest.raises(exceptions.PreconditionFailed, match="direct, fanout, topic"):
            connection.default_channel.exchange_declare("h", "headers")


class TestThreads:
    def test_an_ack_by_another_thread_wakes_a_drain_that_has_no_credit(self, connection: Connection) -> None:
        channel = connection.default_channel
        channel.basic_qos(0, 1, False)
        put(channel, "a", "b")
        got = consume(channel)
        connection.drain_events(timeout=1)
        drainer = threading.Thread(target=lambda: connection.drain_events(timeout=DEADLINE))
        drainer.start()
        drainer.join(0.05)  # let it fall asleep
        got[0].ack()
        drainer.join(DEADLINE / 2)
        assert bodies(got) == "a b"

    def test_a_consumer_that_another_thread_adds_wakes_the_drain(self, connection: Connection) -> None:
        put(connection.default_channel, "a")
        drainer = threading.Thread(target=lambda: connection.drain_events(timeout=DEADLINE))
        drainer.start()
        drainer.join(0.05)
        got = consume(connection.channel())
        drainer.join(DEADLINE / 2)
        assert bodies(got) == "a"

    def test_threads_that_publish_and_ack_beside_a_drain_lose_nothing(
        self, connection: Connection, engine: Engine
    ) -> None:
        channel, number = connection.default_channel, 400
        workers: list[threading.Thread] = []

        def callback(message: Any) -> None:
            workers.append(threading.Thread(target=message.ack))
            workers[-1].start()

        channel.basic_qos(0, 20, False)
        channel.basic_consume("q", callback=callback)
        publisher = threading.Thread(target=lambda: put(connection.channel(), *map(str, range(number))))
        publisher.start()
        until = time.monotonic() + DEADLINE
        while len(workers) < number and time.monotonic() < until:
            connection.drain_events(timeout=DEADLINE)
        for thread in (publisher, *workers):
            thread.join(DEADLINE)
        assert (len(workers), engine.count("q")) == (number, Counts())


class TestEnds:
    def test_a_lost_lease_is_told_again_and_again(self, connect: Open, engine: Engine) -> None:
        zombie = connect(heartbeat=10, transport_options={"name": "zombie"})
        zombie.connect()
        zombie.heartbeat_check()
        engine.expel("zombie")
        consume(zombie.default_channel)
        for _ in range(2):
            with pytest.raises(LeaseLost):
                zombie.drain_events(timeout=0)
            with pytest.raises(LeaseLost):
                zombie.heartbeat_check()
        zombie.close()
        assert zombie.default_channel.connection is not None

    def test_a_heartbeat_is_the_lease_and_more_beats_than_needed_cost_nothing(
        self, connection: Connection, broker: str
    ) -> None:
        with breaking(broker, "beat", k=NEVER, heartbeat=6) as (worker, engines):
            assert worker.get_heartbeat_interval() == 6
            for _ in range(100):
                worker.heartbeat_check()
            assert (engines[0].options.lease, engines[0].calls) == (6, 1)

    def test_without_a_heartbeat_the_engine_keeps_the_lease(self, connection: Connection, broker: str) -> None:
        with breaking(broker, "beat", k=NEVER, transport_options={"lease": 7, "timeout": 3, "more": 1}) as (
            worker,
            engines,
        ):
            assert worker.get_heartbeat_interval() == 0
            options = engines[0].options
            assert (options.keep_alive, options.lease, options.timeout, options.extra) == (True, 7, 3, {"more": 1})

    def test_a_closed_channel_says_so(self, connection: Connection) -> None:
        channel = connection.channel()
        channel.close()
        channel.close()
        with pytest.raises(connection.connection_errors, match="the channel is closed"):
            put(channel, "a")

    def test_a_drain_ends_when_another_thread_closes_its_connection(self, connection: Connection) -> None:
        consume(connection.default_channel)
        errors: list[BaseException] = []

        def drain() -> None:
            try:
                connection.drain_events(timeout=DEADLINE)
            except connection.connection_errors as error:
                errors.append(error)

        drainer = threading.Thread(target=drain)
        drains = connection.connection
        drainer.start()
        while not drains.watched:  # before that, Kombu would open another one
            drainer.join(0.01)
        connection.close()
        drainer.join(DEADLINE / 2)
        assert [str(error) for error in errors] == ["the connection is closed"]

    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_a_forked_child_is_refused_and_does_its_parent_no_harm(
        self, connection: Connection, engine: Engine
    ) -> None:
        channel = connection.default_channel
        put(channel, "a")
        got = consume(channel)
        connection.drain_events(timeout=1)
        ours, theirs = multiprocessing.Pipe(duplex=False)
        child = os.fork()
        if child == 0:
            try:
                put(channel, "b")
            except Unreachable as error:
                theirs.send((str(error), error.sent))
            connection.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert ours.recv() == (
            f"this connection belongs to process {os.getpid()}; open another one after a fork",
            False,
        )
        ours.close()
        theirs.close()
        got[0].ack()
        assert engine.count("q") == Counts()


class TestEventLoop:
    def test_messages_and_credit_drive_an_outer_loop(self, connection: Connection) -> None:
        hub, channel = Hub(), connection.channel()
        connection.register_with_event_loop(hub)
        channel.basic_qos(0, 1, False)
        got = consume(channel)
        publisher = threading.Timer(0.05, lambda: put(connection.channel(), "a", "b", "c"))
        publisher.start()
        for number in (1, 2, 3):
            turn(hub, until=lambda number=number: len(got) == number)  # type: ignore[misc]
            got[-1].ack()
        assert bodies(got) == "a b c"
        publisher.join()
        connection.close()
        assert hub.readers.keys() <= {hub._waker.fileno() if hub._waker else -1}
        hub.close()

    def test_a_delayed_message_comes_on_time_to_an_outer_loop(self, connection: Connection) -> None:
        hub, channel = Hub(), connection.channel()
        connection.register_with_event_loop(hub)
        got = consume(channel)
        turn(hub, until=lambda: True)
        begin = time.monotonic()
        channel.basic_publish(channel.prepare_message("a", headers={"x-delay": 200}), routing_key="q")
        turn(hub, until=lambda: got)
        assert 0.2 <= time.monotonic() - begin < 0.5
        connection.close()
        hub.close()


def turn(hub: Hub, until: Callable[[], object]) -> None:
    """Let hub go round until something is so."""
    end = time.monotonic() + DEADLINE
    hub.run_once()
    while not until():
        assert time.monotonic() < end
        hub.run_once()


def busy(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def bodies_of(engine: Engine, state: Any) -> list[str]:
    return [seen.body.split(b"\n")[1].decode() for seen in engine.browse("q", state)]


def held_in_a_transaction(connection: Connection, *words: str) -> tuple[Any, list[Any]]:
    """A channel in a transaction, and the messages that it holds."""
    put(connection.default_channel, *words)
    channel = connection.channel()
    got = consume(channel)
    connection.drain_events(timeout=1)
    channel.tx_select()
    channel.basic_qos(0, 1, False)  # no more than these
    return channel, got


@contextmanager
def breaking(
    broker: str, fail_on: str, moment: Moment = "after", k: int = 1, **options: Any
) -> Iterator[tuple[Connection, list[Flaky]]]:
    """A connection whose engine breaks at the k-th call of one verb; a second one made by it works. And its engines."""
    engines: list[Flaky] = []

    class Transport(memory.Transport):
        def open_engine(self, options: Options) -> Engine:
            engines.append(Flaky(super().open_engine(options), fail_on, NEVER if engines else k, moment))
            return engines[-1]

    with kombu.Connection(hostname=broker, transport=Transport, **options) as connection:
        connection.connect()
        yield connection, engines


@pytest.mark.parametrize("together", [False, True], ids=["alone", "in a transaction"])
def test_a_queue_that_goes_while_it_is_routed_to_keeps_nothing_from_the_others(
    broker: str, connect: Open, together: bool
) -> None:
    other = connect()

    class Slow(memory.Transport):
        def open_engine(self, options: Options) -> Engine:
            engine = super().open_engine(options)

            def bindings(exchange: str) -> tuple[str, Sequence[Binding]]:
                found = MemoryEngine.bindings(engine, exchange)  # type: ignore[arg-type]
                other.default_channel.queue_delete("gone")
                return found

            engine.bindings = bindings  # type: ignore[method-assign]
            return engine

    with kombu.Connection(hostname=broker, transport=Slow) as connection:
        channel = connection.default_channel
        channel.exchange_declare("news", "fanout")
        for queue in ("gone", "here"):
            channel.queue_declare(queue, auto_delete=False)
            channel.queue_bind(queue, "news")
        producer = kombu.Producer(channel)
        if together:
            channel.tx_select()
            producer.publish("before", routing_key="here")
        producer.publish("x", exchange="news")
        if together:
            producer.publish("after", routing_key="here")
            channel.tx_commit()
        got = [message.payload for message in iter(partial(channel.basic_get, "here"), None)]
        assert got == (["before", "x", "after"] if together else ["x"])


def deep(levels: int) -> bytes:
    """A stored message with a header of so many lists in each other."""
    return b'{"h": {"x": ' + b"[" * levels + b"]" * levels + b"}}\nbody"


class Forgetful(MemoryEngine):
    """An engine that can lose what it was given, without noticing, as one whose network was cut."""

    def reserve(self, wants: Sequence[Want], verdicts: Sequence[Verdict] = ()) -> list[Delivery]:
        self.given = super().reserve(wants, verdicts)
        return self.given

    def lose(self, number: int) -> None:
        self.settle([Verdict(self.given[number].receipt, Action.GIVE_BACK)])


class ForgetfulTransport(memory.Transport):
    def open_engine(self, options: Options) -> Engine:
        return Forgetful(MemoryBroker.named(self.client.hostname), options)
