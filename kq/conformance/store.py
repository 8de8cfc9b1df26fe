"""StoreSuite: what every state store must do. A store's whole test module is a subclass with open()."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Generic, TypeVar

import pytest

from kq.broker import Broker, Inspector, Publisher
from kq.clock import new_id
from kq.conformance.contract.waiting import eventually
from kq.state import Store, Write
from kq.values.message import Envelope

T = TypeVar("T")


class StoreSuite:
    """Derive a class named Test…, and give it open()."""

    #: Whether another process sees the same facts.
    shared = True

    @abstractmethod
    def open(self) -> Store:
        """A store, connected to the same facts each time within one test; no facts when a test begins."""

    def broker(self) -> Broker | None:
        """The broker in the same place, where there is one that carries what the store writes."""
        return None

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        store = self.open()
        yield store
        store.close()

    @pytest.fixture
    def other(self) -> Iterator[Store]:
        """A second connection to the same facts."""
        store = self.open()
        yield store
        store.close()

    def test_a_fact_is_seen_by_everybody(self, store: Store, other: Store) -> None:
        assert store.write([Write("job:1", b"one")]) == [True]
        assert other.get(["job:1", "job:2"]) == [b"one", None]

    def test_values_are_any_bytes(self, store: Store) -> None:
        value = bytes(range(256)) * 1000
        store.write([Write("job:1", value), Write("job:2", b"")])
        assert store.get(["job:2", "job:1"]) == [b"", value]

    def test_keys_are_any_text(self, store: Store) -> None:
        keys = ["unique:a b*?[x]", "unique:ö\n'\"%_", "unique:" + "k" * 300]
        store.write([Write(key, key.encode()) for key in keys])
        assert store.get(keys) == [key.encode() for key in keys]

    def test_a_key_asked_for_twice_is_answered_twice(self, store: Store) -> None:
        store.write([Write("job:1", b"one")])
        assert store.get(["job:1", "job:1"]) == [b"one", b"one"]
        assert store.get([]) == []

    def test_writing_again_replaces(self, store: Store) -> None:
        store.write([Write("job:1", b"one")])
        store.write([Write("job:1", b"two")])
        assert store.get(["job:1"]) == [b"two"]

    def test_no_value_deletes(self, store: Store) -> None:
        store.write([Write("job:1", b"one")])
        assert store.write([Write("job:1", None), Write("job:2", None)]) == [True, True]
        assert store.get(["job:1"]) == [None]

    def test_writing_nothing_is_allowed(self, store: Store) -> None:
        assert store.write([]) == []

    # Conditions.

    def test_add_stores_only_what_is_not_there(self, store: Store) -> None:
        assert store.add("unique:x", b"first")
        assert not store.add("unique:x", b"second")
        assert store.get(["unique:x"]) == [b"first"]

    def test_only_one_of_many_adds_wins(self, store: Store, other: Store) -> None:
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda n: (store, other)[n % 2].add("unique:x", b"%d" % n), range(40)))
        assert won.count(True) == 1
        assert store.get(["unique:x"]) == [b"%d" % won.index(True)]

    def test_alive_refuses_who_has_no_lease(self, store: Store) -> None:
        write = Write("job:1", b"result", alive="lease:w")
        assert store.write([write]) == [False]
        store.write([Write("lease:w", b"")])
        assert store.write([write]) == [True]

    def test_unless_refuses_another_value_only(self, store: Store) -> None:
        def made(allowed: bytes) -> bool:
            return store.write([Write("job:1", b"new", unless=("job:1", allowed))])[0]

        assert made(b"mine")
        store.write([Write("job:1", b"mine")])
        assert made(b"mine")
        assert not made(b"mine")

    def test_unless_may_look_at_another_key(self, store: Store) -> None:
        store.write([Write("start:1", b"elsewhere")])
        assert store.write([Write("job:1", b"x", unless=("start:1", b"here"))]) == [False]
        assert store.get(["job:1"]) == [None]

    def test_must_is_compare_and_set(self, store: Store) -> None:
        assert store.write([Write("pause:q", b"1", must=("pause:q", b"0"))]) == [False]
        assert store.write([Write("pause:q", b"0", must=("pause:q", None))]) == [True]
        assert store.write([Write("pause:q", b"1", must=("pause:q", b"0"))]) == [True]
        assert store.write([Write("pause:q", None, must=("pause:q", b"0"))]) == [False]
        assert store.get(["pause:q"]) == [b"1"]

    def test_all_conditions_must_hold(self, store: Store) -> None:
        store.write([Write("lease:w", b"")])
        refused = Write("job:1", b"x", alive="lease:w", unless=("lease:w", b"other"), must=("job:1", None))
        assert store.write([refused]) == [False]

    def test_replaces_refuses_to_replace_what_begins_otherwise(self, store: Store) -> None:
        def made(value: bytes) -> bool:
            return store.write([Write("job:1", value, replaces=b"old")])[0]

        assert made(b"old one")
        assert made(b"new [x]")
        assert made(b"new [x]")
        assert not made(b"new")
        assert store.get(["job:1"]) == [b"new [x]"]
        for value, begins, allowed in ((b"\x00\xff%", b"\x00\xff", True), (b"\x00", b"\x00\xff", False)):
            store.write([Write("job:2", value)])
            assert store.write([Write("job:2", b"", replaces=begins)]) == [allowed]
        assert store.write([Write("job:1", None, replaces=b"old"), Write("job:3", None, replaces=b"x")]) == [
            False,
            True,
        ]

    def test_a_refused_write_stops_none_of_the_others(self, store: Store) -> None:
        made = store.write([Write("a", b"1"), Write("b", b"1", alive="nobody"), Write("c", b"1", must=("a", b"1"))])
        assert made == [True, False, True]
        assert store.get(["a", "b", "c"]) == [b"1", None, b"1"]

    def test_a_later_write_sees_the_earlier_ones(self, store: Store) -> None:
        made = store.write([Write("a", b"1"), Write("a", b"2", must=("a", b"1")), Write("a", b"3", must=("a", b"1"))])
        assert made == [True, True, False]

    def test_conditions_are_of_any_bytes(self, store: Store) -> None:
        value, other = bytes(range(256)) * 1000, bytes(range(255, -1, -1))
        store.write([Write("a", value)])
        assert store.write([Write("a", other, must=("a", other))]) == [False]
        assert store.write([Write("a", b"", unless=("a", value)), Write("a", other, must=("a", b""))]) == [True, True]
        assert store.get(["a"]) == [other]

    def test_many_writes_are_one(self, store: Store) -> None:
        claims = [Write(f"unique:{n}", b"%d" % n, 60, must=(f"unique:{n}", None)) for n in range(2000)]
        assert store.write(claims) == [True] * 2000
        held = [Write(f"unique:{n}", b"", must=(f"unique:{n}", b"%d" % (n % 1000))) for n in range(2000)]
        assert store.write(held) == [True] * 1000 + [False] * 1000
        assert store.get(["unique:0", "unique:999", "unique:1000"]) == [b"", b"", b"1000"]

    def test_counting_by_many_at_once_loses_nothing(self, store: Store, other: Store) -> None:
        def add_one(connection: Store) -> None:
            while True:
                now = connection.get(["n"])[0]
                following = b"%d" % (int(now or b"0") + 1)
                if connection.write([Write("n", following, must=("n", now))])[0]:
                    return

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(add_one, [store, other] * 20))
        assert store.get(["n"]) == [b"40"]

    def test_numbers_that_many_add_at_once_are_a_sum(self, store: Store, other: Store) -> None:
        def add(n: int) -> list[bool]:
            return (store, other)[n % 2].write([Write("n", b"1", 60, adds=True), Write("n", b"2", 60, adds=True)])

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(add, range(40))) == [[True, True]] * 40
        assert store.get(["n"]) == [b"120"]

    def test_a_number_is_added_where_its_conditions_hold_and_to_0_where_the_last_has_ended(self, store: Store) -> None:
        store.write([Write("n", b"5", keep=0.05, adds=True)])
        eventually(lambda: store.get(["n"]) == [None], "it has vanished")
        assert store.write([Write("n", b"1", adds=True, must=("n", b"5")), Write("n", b"2", adds=True)]) == [
            False,
            True,
        ]
        assert store.get(["n"]) == [b"2"]
        for strange in (b"", b"x", b"-1", b"1e3", b" 1", b"9" * 400, bytes(range(256))):
            store.write([Write("n", strange)])
            store.write([Write("n", b"1", adds=True)])
            assert store.get(["n"]) == [b"1"]

    # Riding on a publish.

    @pytest.fixture
    def riding(self, store: Store) -> Iterator[Riding]:
        """Publishes that carry what store writes."""
        broker = self.broker()
        if broker is None:
            pytest.skip("no broker carries what this store writes")
        publisher, inspector = Publisher(broker), Inspector(broker)
        yield Riding(store, publisher, inspector)
        publisher.close()
        inspector.close()

    def test_what_rides_on_a_publish_is_written_with_it(self, riding: Riding, other: Store) -> None:
        writes = [Write("a:1", bytes(range(256)), unless=("a:1", b"no"), must=("b:1", None)), Write("a:2", b"", 60)]
        with waiting(lambda: other.wait("a:2", timeout=20)) as answer:
            assert riding.publish([*writes, Write("n", b"1", adds=True)])
            assert answer() == b""
        assert other.get(["a:1", "a:2", "n"]) == [bytes(range(256)), b"", b"1"]
        assert riding.stored == 1

    def test_what_rides_is_wholly_done_or_not_at_all(self, riding: Riding, other: Store) -> None:
        other.write([Write("b:1", b"claimed"), Write("c:1", b"old")])
        writes = [Write("a:1", b"x"), Write("c:1", None), Write("b:2", b"y", must=("b:1", None))]
        assert not riding.publish(writes)
        assert other.get(["a:1", "b:2", "c:1"]) == [None, None, b"old"]
        assert riding.stored == 0
        other.write([Write("b:1", None)])
        assert riding.publish(writes)
        assert other.get(["a:1", "b:2", "c:1"]) == [b"x", b"y", None]
        assert riding.stored == 1

    def test_what_rides_may_leave_what_is_there(self, riding: Riding, other: Store) -> None:
        other.write([Write("a:1", b"ended"), Write("a:2", b"waits still")])
        assert not riding.publish([Write("a:1", b"again", replaces=b"waits")])
        assert riding.publish([Write("a:2", b"ended", replaces=b"waits")])
        assert other.get(["a:1", "a:2"]) == [b"ended", b"ended"]

    def test_one_of_many_who_ride_at_once_is_taken_along(self, riding: Riding, other: Store) -> None:
        def rode(n: int) -> bool:
            return riding.publish([Write("unique:x", b"%d" % n, must=("unique:x", None))])

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(rode, range(24)))
        assert won.count(True) == 1 == riding.stored
        assert other.get(["unique:x"]) == [b"%d" % won.index(True)]

    # Time.

    def test_what_is_kept_for_a_time_vanishes(self, store: Store) -> None:
        store.write([Write("job:1", b"one", keep=0.05), Write("job:2", b"two", keep=60)])
        eventually(lambda: store.get(["job:1"]) == [None], "it has vanished")
        assert [key for key, _ in store.scan("job:")] == ["job:2"]
        assert store.add("job:1", b"again")

    def test_it_is_kept_until_then(self, store: Store) -> None:
        before = time.monotonic()
        store.write([Write("job:1", b"one", keep=0.3)])
        eventually(lambda: store.get(["job:1"]) == [None], "it has vanished")
        assert time.monotonic() - before >= 0.3

    def test_writing_again_renews_or_lifts_the_end(self, store: Store) -> None:
        store.write([Write("a", b"", keep=0.05), Write("b", b"", keep=0.05), Write("c", b"", keep=0.05)])
        store.write([Write("a", b"", keep=60), Write("b", b"")])
        eventually(lambda: store.get(["c"]) == [None], "it has vanished")
        assert store.get(["a", "b"]) == [b"", b""]

    def test_an_ended_lease_refuses(self, store: Store) -> None:
        store.write([Write("lease:w", b"", keep=0.05)])
        eventually(lambda: store.get(["lease:w"]) == [None], "it has vanished")
        assert store.write([Write("job:1", b"", alive="lease:w")]) == [False]

    def test_now_is_seconds_since_the_epoch(self, store: Store) -> None:
        assert abs(store.now() - time.time()) < 60

    # Scanning.

    def test_scan_finds_by_prefix_in_order_of_key(self, store: Store) -> None:
        store.write([Write(key, b"") for key in ("worker:b", "worker:a", "workers", "job:1", "worker:ö", "worker:")])
        assert [key for key, _ in store.scan("worker:")] == ["worker:", "worker:a", "worker:b", "worker:ö"]

    def test_scan_takes_the_prefix_literally(self, store: Store) -> None:
        store.write([Write(key, b"") for key in ("pause:a*b", "pause:axb", "pause:a%b", "pause:a[x]")])
        assert [key for key, _ in store.scan("pause:a*")] == ["pause:a*b"]
        assert [key for key, _ in store.scan("pause:a[")] == ["pause:a[x]"]

    def test_scan_gives_values_and_no_more_than_the_limit(self, store: Store) -> None:
        store.write([Write(f"job:{n:03}", b"%d" % n) for n in range(50)])
        assert store.scan("job:", limit=3) == [("job:000", b"0"), ("job:001", b"1"), ("job:002", b"2")]

    def test_gathering_finds_several_families_at_once(self, store: Store) -> None:
        store.write([Write(key, key.encode()) for key in ("worker:a", "worker:b", "workers:x", "lease:a", "order:x:1")])
        gathered = store.gather(["worker:", "order:x", "nothing:", "lease:a"])
        assert [sorted(found) for found in gathered.found] == [["worker:a", "worker:b"], ["order:x:1"], [], ["lease:a"]]
        assert gathered.found[3] == {"lease:a": b"lease:a"}
        assert abs(gathered.now - store.now()) < 60
        assert store.gather([]).found == ()

    def test_gathering_takes_prefixes_literally_and_leaves_out_what_has_ended(self, store: Store) -> None:
        store.write([Write("a:*x", b""), Write("a:yx", b""), Write("a:%", b""), Write("b:1", b"", keep=0.05)])
        eventually(lambda: store.get(["b:1"]) == [None], "it has vanished")
        assert [set(found) for found in store.gather(["a:*", "a:%", "b:"]).found] == [{"a:*x"}, {"a:%"}, set()]

    def test_gathering_has_a_limit_for_each_family(self, store: Store) -> None:
        store.write([Write(f"{family}:{n}", b"") for family in "ab" for n in range(20)])
        assert [len(found) for found in store.gather(["a:", "b:"], limit=5).found] == [5, 5]

    # Waiting.

    def test_waiting_for_what_is_there_returns_at_once(self, store: Store) -> None:
        store.write([Write("job:1", b"one")])
        assert store.wait("job:1", timeout=0) == b"one"

    def test_waiting_ends_at_the_timeout(self, store: Store) -> None:
        before = time.monotonic()
        assert store.wait("job:1", timeout=0.1) is None
        assert 0.1 <= time.monotonic() - before < 2

    def test_waiting_for_many_gives_those_that_are_there(self, store: Store) -> None:
        keys = [f"job:{n}" for n in range(1000)]
        assert store.wait_any(keys, timeout=0) == {}
        store.write([Write("job:7", b""), Write("job:999", b"x"), Write("other", b"y")])
        assert store.wait_any(keys, timeout=20) == {"job:7": b"", "job:999": b"x"}

    def test_who_waits_for_many_is_woken_for_each(self, store: Store, other: Store) -> None:
        left = [f"job:{n}" for n in range(100)]
        for n in (99, 0, 50):
            with waiting(partial(store.wait_any, left, 20)) as answer:
                other.write([Write("job:elsewhere", b"no"), Write(f"job:{n}", b"%d" % n)])
                assert answer() == {f"job:{n}": b"%d" % n}
            left.remove(f"job:{n}")
        assert store.wait_any(left, timeout=0.1) == {}
        assert store.get(["job:0"]) == [b"0"]

    def test_who_waits_is_woken_by_another(self, store: Store, other: Store) -> None:
        with waiting(lambda: store.wait("job:1", timeout=20)) as answer:
            other.write([Write("job:2", b"no"), Write("job:1", b"yes")])
            assert answer() == b"yes"

    def test_waking_takes_milliseconds(self, store: Store, other: Store) -> None:
        spans = []
        for n in range(5):
            with waiting(partial(store.wait, f"job:{n}", 20)) as answer:
                threading.Event().wait(0.05)  # so that it sleeps by now; the test holds if it does not
                before = time.monotonic()
                other.write([Write(f"job:{n}", b"x")])
                answer()
                spans.append(time.monotonic() - before)
        assert sorted(spans)[2] < 0.1

    def test_many_may_wait_for_one_key(self, store: Store, other: Store) -> None:
        with ThreadPoolExecutor(6) as pool:
            answers = [pool.submit((store, other)[n % 2].wait, "job:1", 20) for n in range(6)]
            other.write([Write("job:1", b"yes")])
            assert [answer.result(20) for answer in answers] == [b"yes"] * 6

    def test_a_refused_write_wakes_nobody_with_a_wrong_value(self, store: Store, other: Store) -> None:
        with waiting(lambda: store.wait("job:1", timeout=20)) as answer:
            other.write([Write("job:1", b"no", alive="nobody")])
            other.write([Write("job:1", b"yes")])
            assert answer() == b"yes"

    def test_others_are_served_while_one_waits(self, store: Store) -> None:
        with waiting(lambda: store.wait("job:1", timeout=20)) as answer:
            assert store.write([Write("a", b"1")]) == [True]
            assert store.get(["a"]) == [b"1"]
            store.write([Write("job:1", b"done")])
            assert answer() == b"done"

    # Living with it.

    def test_threads_share_a_store(self, store: Store) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: store.write([Write(f"job:{n}", b"%d" % n)]), range(200)))
        assert len(store.scan("job:")) == 200

    def test_closing_may_be_repeated_and_keeps_the_facts(self, store: Store, other: Store) -> None:
        store.write([Write("job:1", b"one")])
        store.close()
        store.close()
        assert other.get(["job:1"]) == [b"one"]


class Riding:
    """Publishes one message at a time, with what store writes."""

    def __init__(self, store: Store, publisher: Publisher, inspector: Inspector) -> None:
        self._store, self._publisher, self._inspector = store, publisher, inspector
        self._queue = f"rides-{new_id()}"

    def publish(self, writes: Sequence[Write]) -> bool:
        envelope = Envelope(new_id(), self._queue, b"{}", {})
        return self._publisher.publish([envelope], time.monotonic() + 20, self._store.rider(writes))

    @property
    def stored(self) -> int:
        """How many messages there are."""
        return self._inspector.count(self._queue).ready


class waiting(Generic[T]):  # noqa: N801 -- reads as a phrase: with waiting(...) as answer
    """Runs a call in a thread while the body runs; answer() is what it returned."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._future = self._pool.submit(call)

    def __enter__(self) -> Callable[[], T]:
        return lambda: self._future.result(20)

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
