"""What is particular to the store in a Redis: its connections, and what it leaves behind."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from kq.conformance.contract.waiting import eventually
from kq.state import StoreUnreachable, Write, open_store
from kq.state.redis import RedisStore
from kq_transports.conformance.proxy import Proxy
from tests.conftest import available
from tests.servers import RedisServer

SHORT = 0.3  # seconds: the timeout of a verb that is to fail


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis of this test alone, which may be stopped."""
    with available(RedisServer) as server:
        yield server


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    store = RedisStore(server.url, timeout=SHORT)
    yield store
    store.close()


def test_it_goes_on_after_a_restart(server: RedisServer, store: RedisStore) -> None:
    store.write([Write("job:1", b"one")])
    server.restart()
    assert store.write([Write("job:1", b"two", must=("job:1", b"one"))]) == [True]
    server.restart()
    assert store.get(["job:1"]) == [b"two"]


def test_who_waits_learns_that_the_server_went_and_may_wait_again(server: RedisServer, store: RedisStore) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(store.wait, "job:1", 20)
        eventually(lambda: subscribers(server, "job:1") == 1, "somebody waits for it")
        server.kill()
        with pytest.raises(StoreUnreachable):  # nobody listens in the meantime
            answer.result(20)
        server.start()
        answer = pool.submit(store.wait, "job:1", 20)
        eventually(lambda: subscribers(server, "job:1") == 1, "somebody waits for it")
        store.write([Write("job:1", b"one")])
        assert answer.result(20) == b"one"


def test_who_waits_survives_a_cut(server: RedisServer, store: RedisStore, proxy_to: Callable[[int], Proxy]) -> None:
    proxy = proxy_to(server.port)
    behind = RedisStore(f"redis://127.0.0.1:{proxy.port}/0")
    behind.wait("job:1", 0.01)  # so that its connections are there to be cut
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(behind.wait, "job:1", 20)
        eventually(lambda: subscribers(server, "job:1") == 1, "somebody waits for it")
        proxy.cut()
        store.write([Write("job:1", b"one")])
        assert answer.result(20) == b"one"
    behind.close()


def test_a_server_that_says_nothing_is_unreachable_in_time(server: RedisServer, store: RedisStore) -> None:
    store.get(["job:1"])
    with server.frozen():
        begin = time.monotonic()
        for verb in (lambda: store.get(["job:1"]), lambda: store.write([Write("job:1", b"")]), store.now):
            with pytest.raises(StoreUnreachable):
                verb()
        assert time.monotonic() - begin < 3 * SHORT + 1


def test_a_write_whose_answer_was_lost_is_not_made_twice(
    server: RedisServer, store: RedisStore, proxy_to: Callable[[int], Proxy]
) -> None:
    proxy = proxy_to(server.port)
    behind = RedisStore(f"redis://127.0.0.1:{proxy.port}/0")
    behind.add("unique:x", b"first")
    proxy.delay(0.2)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(behind.add, "unique:y", b"mine")
        eventually(lambda: store.get(["unique:y"]) == [b"mine"], "the key is taken")
        proxy.delay(0)
        proxy.cut()
        with pytest.raises(StoreUnreachable):
            answer.result(20)
    assert behind.get(["unique:y"]) == [b"mine"]
    behind.close()


def test_a_wrong_password_is_told_without_it(server: RedisServer, store: RedisStore) -> None:
    with redis.Redis.from_url(server.url) as admin:
        admin.config_set("requirepass", "right-secret")
    stranger = open_store(f"redis://:wrong-secret@127.0.0.1:{server.port}/0")
    with pytest.raises(StoreUnreachable, match="password") as error:
        stranger.now()
    assert "secret" not in repr(error.value)


def test_a_forked_child_has_connections_of_its_own(store: RedisStore) -> None:
    store.write([Write("job:1", b"one")])
    child = os.fork()
    if not child:
        os._exit(0 if store.get(["job:1"]) == [b"one"] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.get(["job:1"]) == [b"one"]


def test_waiting_leaves_no_connections_behind(server: RedisServer, store: RedisStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            list(pool.map(lambda n: store.wait(f"job:{n}", 0.02), range(8)))
    with redis.Redis.from_url(server.url) as admin:
        assert len(admin.client_list()) <= 8 + 8 + 1


def test_what_expired_leaves_nothing_behind(server: RedisServer, store: RedisStore) -> None:
    store.write([Write(f"job:{n}", b"", keep=0.02) for n in range(100)])
    eventually(lambda: store.get(["job:99"]) == [None], "it has vanished")
    for _ in range(11):
        store.write([Write("job:last", b"", keep=60)])
    with redis.Redis.from_url(server.url) as admin:
        eventually(lambda: set(admin.scan_iter()) == {b"kq:state:job:last", b"kq:family:job"}, "the others are gone")
        assert admin.zcard("kq:family:job") == 1


def test_thousands_of_keys_are_scanned(store: RedisStore) -> None:
    store.write([Write(f"job:{n:05}", b"%d" % n) for n in range(3000)])
    assert [key for key, _ in store.scan("job:", limit=2500)] == [f"job:{n:05}" for n in range(2500)]
    assert len(store.scan("jo", limit=5000)) == 3000


def subscribers(server: RedisServer, key: str) -> int:
    """How many wait for key."""
    with redis.Redis.from_url(server.url) as admin:
        ((_, amount),) = admin.pubsub_numsub(f"kq:state:{key}")
        return int(amount)
