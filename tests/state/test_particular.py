"""What is particular to one store: the clock of memory, the file of SQLite, and how stores are named."""

from __future__ import annotations

import multiprocessing
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from kq.conformance.contract.waiting import eventually
from kq.state import Store, StoreUnreachable, Write, open_store
from kq.state.memory import MemoryStore
from kq_transports.engine import Message, Want
from kq_transports.hostfile import Database
from kq_transports.sqlite import SqliteEngine


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class TestMemory:
    def test_what_is_kept_for_days_vanishes_when_the_clock_says_so(self) -> None:
        clock = Hand()
        store = MemoryStore("days", clock=clock)
        store.write([Write("job:1", b"x", keep=3 * 86_400)])
        clock.time += 3 * 86_400 - 1
        assert store.get(["job:1"]) == [b"x"]
        clock.time += 1
        assert (store.get(["job:1"]), store.scan("job:")) == ([None], [])

    def test_stores_of_a_name_share_facts_and_clock_and_others_do_not(self) -> None:
        one, same, other = MemoryStore("one", clock=Hand()), open_store("memory://one"), open_store("memory://other")
        one.write([Write("a", b"x")])
        assert (same.get(["a"]), other.get(["a"])) == ([b"x"], [None])
        assert (same.now(), other.now() > 1e9) == (1000.0, True)


class TestSqlite:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "kq.db"

    @pytest.fixture
    def store(self, path: Path) -> Iterator[Store]:
        store = open_store(f"sqlite:///{path}")
        yield store
        store.close()

    def test_who_waits_is_woken_although_the_folder_of_bells_was_taken_away(self, store: Store, path: Path) -> None:
        path.with_name("kq.db.wake").rmdir()
        waking = threading.Timer(0.1, store.write, [[Write("a", b"1")]])
        waking.start()
        assert store.wait("a", 20) == b"1"
        waking.join()

    def test_a_file_that_was_removed_is_said_once_and_then_there_is_a_new_one(self, store: Store, path: Path) -> None:
        store.write([Write("a", b"old")])
        for file in (path, path.with_name("kq.db-wal"), path.with_name("kq.db-shm")):
            file.unlink()
        with pytest.raises(StoreUnreachable, match="was removed or replaced"):
            store.write([Write("b", b"new")])
        assert store.write([Write("b", b"new")]) == [True]
        assert open_store(f"sqlite:///{path}").get(["a", "b"]) == store.get(["a", "b"]) == [None, b"new"]

    def test_what_need_not_last_waits_for_no_disk(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = list[str]()
        turn = Database.turn

        def noted(database: Database, *, durable: bool = True) -> AbstractContextManager[sqlite3.Connection]:
            asked.append("waits" if durable else "goes on")
            return turn(database, durable=durable)

        monkeypatch.setattr(Database, "turn", noted)
        store.write([Write("a", b"1"), Write("b", b"1", durable=False)])
        store.write([Write("a", None, durable=False), Write("b", b"2", durable=False)])
        assert asked == ["waits", "goes on"]
        assert store.get(["a", "b"]) == [None, b"2"]

    def test_facts_outlive_every_process(self, store: Store, path: Path) -> None:
        store.write([Write("job:1", b"x", keep=3600)])
        store.close()
        again = open_store(f"sqlite:///{path}")
        assert again.get(["job:1"]) == [b"x"]
        again.close()

    def test_who_looks_makes_no_file_before_it_writes(self, path: Path) -> None:
        looking = open_store(f"sqlite:///{path}", look=True)
        assert (looking.get(["job:1"]), looking.scan("job:")) == ([None], [])
        assert not list(path.parent.iterdir())
        looking.write([Write("job:1", b"x")])
        assert looking.get(["job:1"]) == [b"x"]
        looking.close()

    def test_who_looks_sees_what_others_write(self, store: Store, path: Path) -> None:
        looking = open_store(f"sqlite:///{path}", look=True)
        for value in (b"x", b"y"):
            store.write([Write("job:1", value), Write("brief", value, keep=-1)])
            assert (looking.get(["job:1"]), looking.get(["brief"])) == ([value], [None])
            assert looking.scan("job:") == [("job:1", value)]
        looking.close()

    def test_it_may_be_the_file_of_the_broker(self, store: Store, path: Path) -> None:
        engine = SqliteEngine(str(path))
        engine.declare("jobs", {})
        engine.publish([Message("a", "jobs", b"")])
        store.write([Write("job:a", b"x")])
        assert [delivery.id for delivery in engine.reserve([Want(("jobs",), 1)])] == ["a"]
        assert store.get(["job:a"]) == [b"x"]
        engine.close()

    def test_a_write_in_another_process_wakes(self, store: Store, path: Path) -> None:
        process = multiprocessing.get_context("spawn").Process(target=write_later, args=(str(path),))
        process.start()
        assert store.wait("job:1", 30) == b"x"
        process.join()

    def test_who_was_killed_while_waiting_is_forgotten(self, store: Store, path: Path) -> None:
        process = multiprocessing.get_context("spawn").Process(target=wait_for_ever, args=(str(path),))
        process.start()
        eventually(lambda: waiters(path) == 1, "it waits")
        process.kill()
        process.join()
        (bell,) = (path.parent / "kq.db.wake").iterdir()
        bell.unlink()  # as the next process to open the file does, some seconds later
        open_store(f"sqlite:///{path}").close()
        assert waiters(path) == 0

    def test_who_stops_waiting_leaves_nothing_behind(self, store: Store, path: Path) -> None:
        assert store.wait("job:1", 0.05) is None
        assert waiters(path) == 0
        store.close()
        assert list((path.parent / "kq.db.wake").iterdir()) == []

    def test_who_waits_again_makes_no_bell_again(self, store: Store, path: Path) -> None:
        folder = path.parent / "kq.db.wake"
        store.wait("job:1", 0.01)
        (bell,) = folder.iterdir()
        store.wait("job:1", 0.01)
        assert list(folder.iterdir()) == [bell]
        bell.unlink()  # somebody tidied up
        writing = threading.Thread(target=write_later, args=(str(path),))
        writing.start()
        began = time.monotonic()
        assert store.wait("job:1", 30) == b"x"
        assert time.monotonic() - began < 20  # it was woken
        writing.join()

    def test_who_got_what_he_waited_for_is_listed_for_nothing(self, store: Store, path: Path) -> None:
        writing = threading.Thread(target=write_later, args=(str(path),))
        writing.start()
        assert store.wait_any(["job:1", "job:2"], 30) == {"job:1": b"x"}
        assert waiters(path) == 0
        writing.join()

    def test_a_ring_for_what_is_gone_again_ends_no_wait(self, store: Store, path: Path) -> None:
        def write_and_remove() -> None:
            other = open_store(f"sqlite:///{path}")
            for then in ([Write("job:1", None)], []):
                eventually(lambda: waiters(path) == 1, "it waits")
                other.write([Write("job:1", b"x"), *then])
            other.close()

        writing = threading.Thread(target=write_and_remove)
        writing.start()
        began = time.monotonic()
        assert store.wait("job:1", 30) == b"x"
        assert time.monotonic() - began < 20
        writing.join()
        assert waiters(path) == 0

    def test_a_forked_child_opens_the_file_for_itself(self, store: Store) -> None:
        def child(answer: Connection) -> None:
            answer.send(store.get(["job:1"]))
            answer.send(store.wait("job:3", 0.01))
            store.write([Write("job:2", b"from the child")])
            store.close()

        store.write([Write("job:1", b"from the parent")])
        store.wait("job:3", 0.01)  # which leaves a bell
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=child, args=(theirs,))
        process.start()
        assert ours.recv() == [b"from the parent"]
        assert ours.recv() is None
        process.join()
        assert process.exitcode == 0
        assert store.get(["job:2"]) == [b"from the child"]
        assert store.write([Write("job:1", None)]) == [True]

    def test_a_step_of_the_wall_clock_ends_nothing(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        store.write([Write("lease:w", b"", keep=15)])
        right = time.time
        monkeypatch.setattr(time, "time", lambda: right() + 86_400)
        assert store.write([Write("job:1", b"", alive="lease:w")]) == [True]

    def test_a_file_that_is_no_database_is_refused_with_its_name(self, path: Path) -> None:
        path.write_text("just some text\n" * 500)
        with pytest.raises(StoreUnreachable, match=f"{path} is not an SQLite database"):
            open_store(f"sqlite:///{path}")

    def test_a_lock_that_others_keep_is_waited_for_and_no_longer(self, path: Path) -> None:
        store = open_store(f"sqlite:///{path}", timeout=0.3)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnreachable, match="stayed locked"):
            store.write([Write("a", b"")])
        other.close()
        assert store.write([Write("a", b"")]) == [True]
        store.close()


def waiters(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM state_waiter").fetchone()[0])
    finally:
        connection.close()


def write_later(path: str) -> None:
    store = open_store(f"sqlite:///{path}")
    while not waiters(Path(path)):
        time.sleep(0.01)
    store.write([Write("job:1", b"x")])
    store.close()


def wait_for_ever(path: str) -> None:
    open_store(f"sqlite:///{path}").wait("job:1", 3600)
