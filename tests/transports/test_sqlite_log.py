"""What an operator does to the log of a file in use: nothing that was stored is lost, and the file stays whole."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from kq_transports.conformance.engine.world import done, ids, messages, take
from kq_transports.engine import EngineError, Options
from kq_transports.sqlite import SqliteEngine

SPAWNED = multiprocessing.get_context("spawn")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kq.db"


class Program:
    """Another process that has the file open, and does what it is told to."""

    def __init__(self, path: Path) -> None:
        self._ear, far = SPAWNED.Pipe()
        self._process = SPAWNED.Process(target=obey, args=(str(path), far))
        self._process.start()
        far.close()
        assert self._ear.recv() == "ready"

    def publish(self, names: str) -> str:
        return self._tell("publish", names)

    def take(self) -> str:
        return self._tell("take", "")

    def beat(self) -> str:
        return self._tell("beat", "")

    def end(self) -> None:
        if self._process.is_alive():
            self._tell("close", "")
        self._process.join()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def _tell(self, verb: str, names: str) -> str:
        self._ear.send((verb, names))
        assert self._ear.poll(20)
        return str(self._ear.recv())


def obey(path: str, told: multiprocessing.connection.Connection) -> None:
    engine = SqliteEngine(path)
    verbs: dict[str, Callable[[str], object]] = {
        "publish": lambda names: engine.publish(messages(names)),
        "take": lambda _: ids(take(engine)),
        "beat": lambda _: engine.beat(),
        "close": lambda _: engine.close(),
    }
    told.send("ready")
    verb = ""
    while verb != "close":
        verb, names = told.recv()
        try:
            told.send(verbs[verb](names) or "done")
        except EngineError as error:
            told.send(str(error))


@pytest.fixture
def start(path: Path) -> Iterator[Callable[[], Program]]:
    with closing(SqliteEngine(str(path))) as engine:
        engine.declare("jobs", {})
    started: list[Program] = []

    def start() -> Program:
        started.append(Program(path))
        return started[-1]

    yield start
    for program in started:
        program.kill()


def stored(path: Path) -> str:
    """The ids of what is ready in the file, which is whole."""
    with closing(SqliteEngine(str(path))) as engine:
        found = take(engine)
        engine.settle(done(found))
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return ids(found)


def beside(path: Path, *suffixes: str) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in suffixes]


def remove(path: Path, *suffixes: str) -> None:
    for file in beside(path, *suffixes):
        file.unlink()


def move_away(path: Path, *suffixes: str) -> None:
    elsewhere = path.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    for file in beside(path, *suffixes):
        file.rename(elsewhere / file.name)


Deed = Callable[[Path], None]

DEEDS: dict[str, Deed] = {
    "log removed": lambda path: remove(path, "-wal"),
    "index removed": lambda path: remove(path, "-shm"),
    "both removed": lambda path: remove(path, "-wal", "-shm"),
    "log moved": lambda path: move_away(path, "-wal"),
    "index moved": lambda path: move_away(path, "-shm"),
    "both moved": lambda path: move_away(path, "-wal", "-shm"),
}


@pytest.fixture(params=list(DEEDS.values()), ids=list(DEEDS))
def deed(request: pytest.FixtureRequest) -> Deed:
    chosen: Deed = request.param
    return chosen


class TestALogThatIsTakenAway:
    def test_what_is_stored_after_it_survives_the_death_of_every_process(
        self, path: Path, start: Callable[[], Program], deed: Deed
    ) -> None:
        program = start()
        assert program.publish("a") == "done"
        deed(path)
        assert program.publish("b") == "done"
        program.kill()
        assert stored(path) == "a b"

    def test_who_comes_meanwhile_goes_on_with_the_same_log(
        self, path: Path, start: Callable[[], Program], deed: Deed
    ) -> None:
        one = start()
        assert one.publish("a") == "done"
        deed(path)
        two = start()
        assert [two.publish("b"), one.publish("c"), two.publish("d")] == ["done"] * 3
        one.kill()
        assert two.publish("e") == "done"
        two.kill()
        assert stored(path) == "a b c d e"

    def test_who_only_looks_sees_all(self, path: Path, start: Callable[[], Program], deed: Deed) -> None:
        program = start()
        assert program.publish("a b") == "done"
        deed(path)
        with closing(SqliteEngine(str(path), Options(look=True))) as looking:
            assert looking.count("jobs").ready == 2
            assert program.publish("c") == "done"
            assert looking.count("jobs").ready == 3

    def test_an_idle_worker_puts_it_back_with_its_next_beat(
        self, path: Path, start: Callable[[], Program], deed: Deed
    ) -> None:
        program = start()
        assert program.publish("a") == "done"
        before = [file.stat().st_ino for file in beside(path, "-wal", "-shm")]
        deed(path)
        assert program.beat() == "done"
        assert [file.stat().st_ino for file in beside(path, "-wal", "-shm")] == before
        program.kill()
        assert stored(path) == "a"

    def test_who_ends_in_good_order_writes_it_back_and_leaves_nothing_behind(
        self, path: Path, start: Callable[[], Program], deed: Deed
    ) -> None:
        program = start()
        assert program.publish("a") == "done"
        deed(path)
        program.end()
        assert not any(file.exists() for file in beside(path, "-wal", "-shm"))
        assert list((path.parent / "kq.db.spare").iterdir()) == []
        assert stored(path) == "a"

    def test_a_stranger_who_looks_meanwhile_does_no_harm(
        self, path: Path, start: Callable[[], Program], deed: Deed
    ) -> None:
        one, two = start(), start()
        assert one.publish("a") == "done"
        deed(path)
        with closing(sqlite3.connect(path, timeout=0.1)) as stranger:
            with suppress(sqlite3.Error):  # the log that it knows nothing of is missing to it
                stranger.execute("SELECT count(*) FROM kq_message").fetchall()
            assert [two.publish("b"), one.publish("c")] == ["done"] * 2
        one.kill()
        two.kill()
        assert stored(path) == "a b c"


class TestAnotherLog:
    def test_one_that_a_stranger_began_when_all_was_in_the_file_is_gone_on_with(
        self, path: Path, start: Callable[[], Program]
    ) -> None:
        one, two = start(), start()
        assert one.publish("a") == "done"
        with closing(sqlite3.connect(path)) as stranger:
            assert stranger.execute("PRAGMA wal_checkpoint").fetchone()[0] == 0
        remove(path, "-wal")
        with closing(sqlite3.connect(path)) as stranger, stranger:
            stranger.execute("CREATE TABLE theirs AS SELECT 1")
        assert [one.publish("b"), two.publish("c"), one.publish("d")] == ["done"] * 3
        one.kill()
        two.kill()
        assert stored(path) == "a b c d"
        with closing(sqlite3.connect(path)) as stranger:
            assert stranger.execute("SELECT * FROM theirs").fetchall() == [(1,)]

    def test_without_spares_what_is_in_it_goes_into_the_file(
        self, path: Path, start: Callable[[], Program], deed: Deed
    ) -> None:
        one, two = start(), start()
        assert [one.publish("a"), two.publish("b")] == ["done"] * 2
        deed(path)
        shutil.rmtree(path.with_name("kq.db.spare"))
        assert [one.publish("c"), two.publish("d"), one.publish("e")] == ["done"] * 3
        one.kill()
        two.kill()
        assert stored(path) == "a b c d e"

    def test_spares_that_were_removed_are_made_anew(self, path: Path, start: Callable[[], Program]) -> None:
        program = start()
        shutil.rmtree(path.with_name("kq.db.spare"))
        assert program.publish("a") == "done"
        remove(path, "-wal", "-shm")
        two = start()
        assert two.publish("b") == "done"
        two.kill()
        program.kill()
        assert stored(path) == "a b"

    def test_without_spares_who_comes_waits_for_who_has_it(self, path: Path, start: Callable[[], Program]) -> None:
        program = start()
        assert program.publish("a") == "done"
        remove(path, "-wal", "-shm")
        shutil.rmtree(path.with_name("kq.db.spare"))
        for _ in range(2):
            with pytest.raises(EngineError, match=r"-wal, was removed while it was in use; end what uses the file"):
                SqliteEngine(str(path))
        assert program.beat() == "done"
        with closing(SqliteEngine(str(path))) as engine:
            engine.publish(messages("b"))
        program.kill()
        assert stored(path) == "a b"

    def test_that_of_the_dead_stays_away(self, path: Path, start: Callable[[], Program]) -> None:
        program = start()
        shutil.copy(path, path.with_name("backup"))
        assert program.publish("a") == "done"
        program.kill()
        remove(path, "", "-wal", "-shm")
        path.with_name("backup").rename(path)
        assert stored(path) == ""

    def test_that_of_a_file_whose_place_another_one_took_is_not_used_for_that(
        self, path: Path, start: Callable[[], Program]
    ) -> None:
        with closing(SqliteEngine(str(path.with_name("backup")))) as engine:
            engine.declare("jobs", {})
            engine.publish(messages("x"))
        program = start()
        assert program.publish("a b c") == "done"
        path.rename(path.with_name("old"))
        path.with_name("backup").rename(path)  # -wal and -shm are those of the old one
        other = start()
        assert other.publish("y") == "done"
        assert "was removed or replaced" in program.publish("d")
        program.end()
        assert other.publish("z") == "done"
        other.kill()
        assert stored(path) == "x y z"
        with closing(sqlite3.connect(path.with_name("old"))) as old:
            assert old.execute("SELECT count(*) FROM kq_message").fetchone() == (3,)


class TestALogThatIsCut:
    def test_what_is_stored_after_it_is_kept_when_all_was_in_the_file(
        self, path: Path, start: Callable[[], Program]
    ) -> None:
        one, two = start(), start()
        assert one.publish("a") == "done"
        with closing(sqlite3.connect(path)) as stranger:
            assert stranger.execute("PRAGMA wal_checkpoint").fetchone()[0] == 0
        path.with_name("kq.db-wal").write_bytes(b"")
        assert [one.publish("b"), two.publish("c")] == ["done"] * 2
        one.kill()
        two.kill()
        assert stored(path) == "a b c"

    def test_nothing_is_said_to_be_stored_behind_what_is_missing(
        self, path: Path, start: Callable[[], Program]
    ) -> None:
        one, two = start(), start()
        assert one.publish("a") == "done"
        with closing(sqlite3.connect(path)) as stranger:
            assert stranger.execute("PRAGMA wal_checkpoint").fetchone()[0] == 0
        assert [one.publish("b"), two.publish("c")] == ["done"] * 2
        path.with_name("kq.db-wal").write_bytes(b"")
        assert "was cut while it was in use; what was in it and not yet in the file is lost" in one.publish("d")
        assert "was cut while it was in use" in two.publish("e")
        one.end()
        two.end()
        three = start()
        assert three.publish("f") == "done"
        three.kill()
        assert stored(path) == "a f"

    def test_who_empties_it_as_sqlite_does_disturbs_nobody(self, path: Path, start: Callable[[], Program]) -> None:
        program = start()
        assert program.publish("a") == "done"
        with closing(sqlite3.connect(path)) as stranger:
            assert stranger.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        assert path.with_name("kq.db-wal").stat().st_size == 0
        assert program.publish("b") == "done"
        program.kill()
        assert stored(path) == "a b"
