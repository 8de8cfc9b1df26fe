"""What is particular to a broker that is a file: bad files, full disks, locks, clocks, killed owners."""

from __future__ import annotations

import errno
import multiprocessing
import multiprocessing.connection
import os
import resource
import shutil
import sqlite3
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from kombu import Connection

import kq_transports  # noqa: F401 -- the schemes
from kq_transports.conformance.engine.world import done, message, messages, readable, take
from kq_transports.engine import Absent, Counts, Engine, EngineError, Full, LeaseLost, Message, Options, Unreachable
from kq_transports.hostfile import database
from kq_transports.hostfile.lock import FileLock
from kq_transports.hostfile.mounts import file_system, parse_mount, parse_proc
from kq_transports.sqlite import SqliteEngine

NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kq.db"


@pytest.fixture
def connect(path: Path) -> Iterator[Callable[..., Engine]]:
    """Opens connections to the file at path, which are closed after the test."""
    opened: list[Engine] = []

    def connect(**options: float) -> Engine:
        opened.append(SqliteEngine(str(path), Options(**options)))  # type: ignore[arg-type]
        return opened[-1]

    yield connect
    for engine in opened:
        engine.close()


@pytest.fixture
def engine(connect: Callable[..., Engine]) -> Engine:
    engine = connect()
    engine.declare("jobs", {})
    return engine


@contextmanager
def as_nobody() -> Iterator[None]:
    """For root, who may write anywhere, be somebody else for a while."""
    if os.getuid():
        yield
        return
    os.setresgid(NOBODY, NOBODY, 0)
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A folder that as_nobody() may enter."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == tmp_path.owner() and folder.is_relative_to(tempfile.gettempdir()):
            folder.chmod(folder.stat().st_mode | 0o055)
    return tmp_path


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """A full disk, as far as this process can see."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestLooking:
    """A connection for looking needs no more than to read."""

    def test_it_makes_no_file(self, path: Path, connect: Callable[..., Engine]) -> None:
        with pytest.raises(Absent, match=f"there is no file {path}"):
            connect(look=True)
        assert not list(path.parent.iterdir())

    def test_it_makes_no_tables_in_the_file_of_another_program(
        self, path: Path, connect: Callable[..., Engine]
    ) -> None:
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE theirs (x)")
        before = path.read_bytes()
        with pytest.raises(Absent, match="without queues"):
            connect(look=True)
        assert path.read_bytes() == before

    def test_it_says_that_the_log_was_removed_and_what_brings_it_back(
        self, path: Path, engine: Engine, connect: Callable[..., Engine]
    ) -> None:
        engine.publish(messages("a b"))
        path.with_name(path.name + "-wal").unlink()
        shutil.rmtree(path.with_name(path.name + ".spare"))  # else it would be back
        for _ in range(2):  # who looks makes a new log
            with pytest.raises(Unreachable, match=r"-wal, was removed while it was in use; end what uses the file"):
                connect(look=True)
        engine.close()
        assert connect(look=True).count("jobs").ready == 2

    def test_it_sees_what_others_write_later(self, engine: Engine, connect: Callable[..., Engine]) -> None:
        looking = connect(look=True)
        engine.publish(messages("a b"))
        take(engine, 1)
        assert looking.count("jobs") == Counts(ready=1, held=1)
        assert [seen.id for seen in looking.browse("jobs")] == ["b"]

    def test_it_waits_for_no_writer(self, engine: Engine, connect: Callable[..., Engine], path: Path) -> None:
        engine.publish(messages("a"))
        with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            assert connect(look=True, timeout=0.1).count("jobs").ready == 1

    @pytest.mark.parametrize("in_use", [True, False], ids=["in use", "at rest"])
    def test_a_full_disk_is_no_hindrance(self, connect: Callable[..., Engine], engine: Engine, in_use: bool) -> None:
        engine.publish(messages("a"))
        if not in_use:
            engine.close()
        with no_file_larger_than(0):
            looking = connect(look=True)
            assert [seen.id for seen in looking.browse("jobs")] == ["a"]
            with pytest.raises(Full, match="no room"):
                looking.remove("jobs", ["a"])
        assert looking.remove("jobs", ["a"]) == ["a"]

    def test_a_file_that_is_read_only_may_be_looked_at(self, public: Path) -> None:
        path = public / "kq.db"
        engine = SqliteEngine(str(path))
        engine.declare("jobs", {})
        engine.close()
        path.chmod(0o444)
        public.chmod(0o555)
        with as_nobody():
            looking = SqliteEngine(str(path), Options(look=True))
            assert looking.count("jobs") == Counts()
            with pytest.raises(EngineError, match="not writable to this user"):
                looking.purge("jobs")
            looking.close()


class TestFilesThatCannotBeUsed:
    @pytest.mark.parametrize("content", [b"just some text\n" * 500, b"\x00" * 5000])
    def test_a_file_that_is_no_database_is_left_alone(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(EngineError, match=f"{path} is not an SQLite database"):
            SqliteEngine(str(path))
        assert path.read_bytes() == content

    def test_a_damaged_file_is_called_damaged(self, path: Path, connect: Callable[..., Engine]) -> None:
        engine = connect()
        engine.declare("jobs", {})
        engine.publish([message(f"m{i}") for i in range(2000)])
        engine.close()
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (path.stat().st_size - 4096))
        with pytest.raises(EngineError, match="damaged"):
            take(connect())

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match=f"folder {tmp_path}/nowhere does not exist; create it"):
            SqliteEngine(str(tmp_path / "nowhere" / "kq.db"))

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match="is not a file"):
            SqliteEngine(str(tmp_path))

    @pytest.mark.parametrize("name", ["", ":memory:", "jobs/"])
    def test_what_names_no_file_is_refused(self, name: str) -> None:
        with pytest.raises(EngineError, match="needs the path of a file"):
            SqliteEngine(name)

    def test_a_read_only_file_is_refused_when_it_is_opened(self, public: Path) -> None:
        path = public / "kq.db"
        SqliteEngine(str(path)).close()
        path.chmod(0o444)
        public.chmod(0o777)
        with as_nobody(), pytest.raises(EngineError, match=f"{path} is read-only for this user; change its owner"):
            SqliteEngine(str(path))

    def test_a_read_only_folder_is_refused(self, public: Path) -> None:
        public.chmod(0o555)
        with as_nobody(), pytest.raises(EngineError, match=f"folder {public} is not writable to this user"):
            SqliteEngine(str(public / "kq.db"))

    def test_a_file_of_a_newer_version_is_refused(self, path: Path) -> None:
        SqliteEngine(str(path)).close()
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("UPDATE host_user SET version = version + 1")
        other.close()
        with pytest.raises(EngineError, match="newer version"):
            SqliteEngine(str(path))

    def test_an_unknown_option_is_named(self, path: Path) -> None:
        with pytest.raises(EngineError, match="no option sync"):
            SqliteEngine(str(path), Options(extra={"sync": "off"}))
        with pytest.raises(EngineError, match="shared is true or false, not 'yes'"):
            SqliteEngine(str(path), Options(extra={"shared": "yes"}))
        with pytest.raises(EngineError, match="synchronous must be full or normal, not 'off'"):
            SqliteEngine(str(path), Options(extra={"synchronous": "off"}))

    def test_a_url_with_two_slashes_is_corrected(self) -> None:
        with Connection("kq-sqlite://jobs.db") as connection, pytest.raises(EngineError, match="kq-sqlite:///jobs.db"):
            connection.connect()


class TestNetworkFileSystems:
    PROC = (
        "sysfs /sys sysfs rw 0 0\n"
        "/dev/vda / ext4 rw 0 0\n"
        "nas:/x /mnt/my\\040nas nfs4 rw 0 0\n"
        "/dev/b /mnt/my\\040nas/b xfs rw 0 0\n"
    )
    MOUNT = "/dev/disk1 on / (apfs, local)\n//me@nas/jobs on /Volumes/jobs (smbfs, nodev, mounted by me)\n"

    @pytest.mark.parametrize(
        ("file", "kind"), [("/var/x.db", "ext4"), ("/mnt/my nas/x.db", "nfs4"), ("/mnt/my nas/b/x.db", "xfs")]
    )
    def test_linux_tells_them_by_its_table(self, file: str, kind: str) -> None:
        assert file_system(Path(file), parse_proc(self.PROC)) == kind

    @pytest.mark.parametrize(("file", "kind"), [("/Users/x.db", "apfs"), ("/Volumes/jobs/x.db", "smbfs")])
    def test_macos_tells_them_by_its_mount_command(self, file: str, kind: str) -> None:
        assert file_system(Path(file), parse_mount(self.MOUNT)) == kind

    def test_the_latest_of_two_mounts_at_one_place_counts(self) -> None:
        assert file_system(Path("/a/x"), [("/", "ext4"), ("/a", "ext4"), ("/a", "nfs")]) == "nfs"

    def test_a_local_disk_is_used(self, engine: Engine) -> None:
        assert engine.count("jobs") == Counts()


class TestFilesInUse:
    def test_what_is_made_is_for_its_owner_only(self, engine: Engine, path: Path) -> None:
        engine.arm(["jobs"])
        modes = {file.name: oct(stat.S_IMODE(file.stat().st_mode)) for file in path.parent.rglob("*")}
        assert {modes.pop("kq.db.wake"), modes.pop("kq.db.spare")} == {"0o700"}
        assert len(modes) == 7  # the file, -wal and -shm, each by two names, .lock and one bell
        assert set(modes.values()) == {"0o600"}

    def test_who_opens_it_to_a_group_opens_all_of_it(self, path: Path) -> None:
        SqliteEngine(str(path)).close()
        path.chmod(0o660)
        engine = SqliteEngine(str(path))
        engine.arm([])
        files = [file for file in path.parent.rglob("*") if file.is_file() or file.is_fifo()]
        assert {oct(stat.S_IMODE(file.stat().st_mode)) for file in files} == {"0o660"}
        for folder in ("kq.db.wake", "kq.db.spare"):
            assert stat.S_IMODE((path.parent / folder).stat().st_mode) == 0o770
        engine.close()

    @pytest.mark.parametrize("suffix", [".lock", ".wake", ".spare"])
    def test_what_somebody_laid_beside_it_is_refused_and_left_alone(
        self, path: Path, tmp_path_factory: pytest.TempPathFactory, suffix: str
    ) -> None:
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        elsewhere.chmod(0o755)
        link = path.with_name(path.name + suffix)
        link.symlink_to(elsewhere)
        with pytest.raises(EngineError, match="was not made by kq"):
            SqliteEngine(str(path))
        assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755
        assert list(elsewhere.iterdir()) == []
        link.unlink()
        target = elsewhere / "settings"
        target.write_text("kept")
        target.chmod(0o644)
        link.symlink_to(target)
        with pytest.raises(EngineError, match="was not made by kq"):
            SqliteEngine(str(path))
        assert (stat.S_IMODE(target.stat().st_mode), target.read_text()) == (0o644, "kept")

    @pytest.mark.skipif(os.geteuid() != 0, reason="makes files of another user")
    @pytest.mark.parametrize("theirs", ["", "-wal", "-shm", "-journal", ".lock", ".wake", ".spare", "folder", "link"])
    @pytest.mark.parametrize("look", [False, True])
    def test_what_another_user_made_is_refused_unless_it_is_shared(
        self, tmp_path: Path, theirs: str, look: bool
    ) -> None:
        path = tmp_path / "folder" / "kq.db"
        path.parent.mkdir()
        prey, named = path.with_name(path.name + theirs), path
        owner = SqliteEngine(str(path))
        owner.declare("jobs", {})
        if theirs == "folder":
            prey = path.parent
        elif theirs == "link":
            prey = named = tmp_path / "link.db"
            prey.symlink_to(path)
        elif not prey.exists():
            prey.touch()
        os.chown(prey, NOBODY, NOBODY, follow_symlinks=False)
        before = prey.lstat()
        shared = Options(look=look, extra={"shared": True})
        with closing(SqliteEngine(str(named), shared)) as engine:
            assert engine.count("jobs") == Counts()
        os.chown(prey, NOBODY, NOBODY, follow_symlinks=False)
        if look and theirs in (".lock", ".wake", ".spare"):
            SqliteEngine(str(named), Options(look=True)).close()  # who only looks does not use them
        else:
            with pytest.raises(EngineError, match=r"belongs to the user .*65534.*\?shared=true"):
                SqliteEngine(str(named), Options(look=look))
        assert prey.lstat().st_mode == before.st_mode
        owner.close()

    @pytest.mark.parametrize("name", ["../prey", "link", "prey", "folder"])
    def test_only_bells_are_rung_whatever_the_database_says(self, engine: Engine, path: Path, name: str) -> None:
        bells = path.with_name("kq.db.wake")
        for prey in (path.with_name("prey"), bells / "prey"):
            prey.write_text("kept")
        (bells / "folder").mkdir()
        (bells / "link").symlink_to(path.with_name("prey"))
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("INSERT INTO kq_waiter (queue, bell) SELECT number, ? FROM kq_queue", (name,))
        other.close()
        engine.publish(messages("a"))
        assert {(path.with_name("prey")).read_text(), (bells / "prey").read_text()} == {"kept"}
        assert len(take(engine)) == 1

    def test_a_full_disk_stores_nothing_and_loses_nothing(self, engine: Engine) -> None:
        engine.publish(messages("a b"))
        with no_file_larger_than(200_000), pytest.raises(Full, match="no room"):
            engine.publish([Message(f"big{i}", "jobs", b"x" * 100_000) for i in range(10)])
        engine.publish(messages("c"))
        assert [delivery.id for delivery in take(engine)] == ["a", "b", "c"]

    def test_a_disk_that_fills_up_step_by_step_keeps_what_was_accepted(self, engine: Engine) -> None:
        accepted: list[str] = []

        def fill() -> None:
            for i in range(1000):
                engine.publish([Message(f"m{i}", "jobs", b"x" * 5000)])
                accepted.append(f"m{i}")

        with no_file_larger_than(400_000), pytest.raises(Full):
            fill()
        assert len(accepted) > 10
        assert [delivery.id for delivery in take(engine, 2000)] == accepted

    def test_a_lock_that_others_keep_is_waited_for_and_no_longer(
        self, engine: Engine, connect: Callable[..., Engine], path: Path
    ) -> None:
        hasty = connect(timeout=0.3)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        begin = time.monotonic()
        with pytest.raises(Unreachable, match="stayed locked") as caught:
            hasty.publish(messages("a"))
        assert 0.25 < time.monotonic() - begin < 2
        assert not caught.value.sent
        other.execute("ROLLBACK")
        other.close()
        hasty.publish(messages("a"))

    def test_a_process_that_was_stopped_in_its_turn_is_waited_for_and_no_longer(
        self, engine: Engine, connect: Callable[..., Engine], path: Path
    ) -> None:
        hasty = connect(timeout=0.3)
        turn = FileLock(path.with_name("kq.db.lock"), 0o600)
        assert turn.acquire(1)
        with pytest.raises(Unreachable, match="stayed locked"):
            hasty.publish(messages("a"))
        turn.close()
        hasty.publish(messages("a"))
        assert engine.count("jobs").ready == 1

    def test_a_file_that_was_removed_is_noticed(
        self, engine: Engine, connect: Callable[..., Engine], path: Path
    ) -> None:
        for file in (path, path.with_name("kq.db-wal"), path.with_name("kq.db-shm")):
            file.unlink()
        with pytest.raises(Unreachable, match="removed or replaced"):
            engine.publish(messages("a"))
        again = connect()
        again.declare("jobs", {})
        again.publish(messages("a"))

    def test_a_lock_file_that_was_removed_is_made_anew(
        self, engine: Engine, connect: Callable[..., Engine], path: Path
    ) -> None:
        others = [connect() for _ in range(2)]
        path.with_name("kq.db.lock").unlink()

        def publish(other: Engine, name: str) -> None:
            for i in range(200):
                other.publish(messages(f"{name}{i}"))

        threads = [threading.Thread(target=publish, args=each) for each in zip(others, "xy", strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert engine.count("jobs").ready == 400

    def test_who_sleeps_is_woken_by_its_next_beat_although_its_bell_was_removed(
        self, engine: Engine, connect: Callable[..., Engine], path: Path
    ) -> None:
        assert take(engine) == []
        descriptor, other = engine.arm(["jobs"]), connect()
        shutil.rmtree(path.with_name("kq.db.wake"))
        other.publish(messages("a"))
        assert not readable(descriptor, within=0)
        engine.beat()
        assert readable(descriptor, within=5)
        assert len(take(engine)) == 1
        descriptor = engine.arm(["jobs"])
        other.publish(messages("b"))
        assert readable(descriptor, within=5)

    def test_a_closed_connection_says_so(self, engine: Engine) -> None:
        engine.close()
        with pytest.raises(EngineError, match="was closed"):
            engine.publish(messages("a"))

    def test_a_forked_child_is_refused_and_does_no_harm(self, engine: Engine) -> None:
        def child(engine: Engine, answer: multiprocessing.connection.Connection) -> None:
            try:
                engine.publish(messages("b"))
            except EngineError as error:
                answer.send(str(error))
            engine.close()

        engine.publish(messages("a"))
        held = take(engine)
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=child, args=(engine, theirs))
        process.start()
        process.join()
        assert "belongs to the parent process" in ours.recv()
        assert engine.settle(done(held)) == []

    def test_a_relative_path_stays_where_it_was(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with Connection("kq-sqlite:///jobs.db") as connection:
            connection.connect()
            monkeypatch.chdir("/")
            connection.SimpleQueue("q").put({"n": 1}, serializer="json")
        assert (tmp_path / "jobs.db").exists()

    def test_a_link_to_a_file_is_that_file(self, engine: Engine, path: Path, tmp_path: Path) -> None:
        folder = tmp_path / "links"
        folder.mkdir()
        link = folder / "kq.db"
        link.symlink_to(path)
        with closing(SqliteEngine(str(link))) as other:
            other.publish(messages("a"))
        with closing(SqliteEngine(str(link), Options(look=True))) as looking:
            assert looking.count("jobs").ready == 1
        assert list(folder.iterdir()) == [link]
        assert len(take(engine)) == 1

    def test_a_path_too_long_for_a_socket_wakes_as_well(self, tmp_path: Path) -> None:
        folder = tmp_path / ("d" * 150)
        folder.mkdir()
        one, two = SqliteEngine(str(folder / "kq.db")), SqliteEngine(str(folder / "kq.db"))
        one.declare("jobs", {})
        assert take(one) == []
        one.arm(["jobs"])
        two.publish(messages("a"))
        assert one.wait(["jobs"], 5)
        one.close()
        two.close()


class TestSize:
    def test_the_file_grows_with_what_waits_and_not_with_what_passed(self, engine: Engine) -> None:
        sizes = []
        for turn in range(4):
            engine.publish([message(f"m{turn}-{i}") for i in range(3000)])
            assert engine.settle(done(take(engine, 3000))) == []
            sizes.append(int(engine.facts()["bytes"]))
        assert sizes[-1] <= sizes[0] * 1.05

    def test_a_program_that_reads_for_long_makes_the_log_grow_which_is_told_and_shrinks_again(
        self, engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch, connect: Callable[..., Engine]
    ) -> None:
        monkeypatch.setattr(database, "LOG_LIMIT", 2**20)
        writing = connect()
        with closing(sqlite3.connect(path, isolation_level=None)) as reading:
            reading.execute("BEGIN")
            reading.execute("SELECT count(*) FROM kq_message").fetchall()
            for turn in range(40):
                writing.publish([Message(f"m{turn}", "jobs", b"x" * 300_000)])
            grown = int(writing.facts()["log bytes"])
        assert grown > 12_000_000
        for turn in range(40, 50):
            writing.publish([Message(f"m{turn}", "jobs", b"x" * 300_000)])
        assert int(writing.facts()["log bytes"]) < 8_000_000
        assert len(take(engine)) == 50

    def test_it_changes_no_more_of_the_file_where_jobs_differ_in_priority(self, engine: Engine, path: Path) -> None:
        def changed(priorities: int) -> int:
            """Bytes written to drain a queue, a hundred at a time."""
            body = bytes(300)
            engine.publish([Message(f"{each:04}", "jobs", body, priority=each % priorities) for each in range(1000)])
            with closing(sqlite3.connect(path)) as other:
                other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            while held := take(engine):
                engine.settle(done(held))
            return Path(f"{path}-wal").stat().st_size

        same = changed(1)
        assert changed(10) < 1.5 * same

    def test_a_deleted_queue_leaves_nothing_behind(self, engine: Engine, path: Path) -> None:
        engine.publish([message(f"m{i}", delay=i % 3) for i in range(12_000)])
        take(engine, 100)
        assert engine.delete("jobs") == 12_000
        assert rows(path) == 0

    def test_a_delete_that_was_cut_off_is_finished_by_the_next_connection(
        self, engine: Engine, connect: Callable[..., Engine], path: Path
    ) -> None:
        engine.publish([message(f"m{i}") for i in range(100)])
        with closing(sqlite3.connect(path)) as other, other:  # what a process does first that is then killed
            other.execute("INSERT INTO kq_dropped SELECT number FROM kq_queue")
            other.execute("DELETE FROM kq_queue")
        other.close()
        connect()
        assert rows(path) == 0

    def test_the_bells_of_killed_processes_are_swept_away(
        self, engine: Engine, connect: Callable[..., Engine], path: Path
    ) -> None:
        process = multiprocessing.get_context("spawn").Process(target=sleep_on_jobs, args=(str(path),))
        process.start()
        bells = path.with_name("kq.db.wake")
        until = time.monotonic() + 20
        while not list(bells.iterdir()):
            assert time.monotonic() < until, "it did not fall asleep"
            time.sleep(0.01)
        process.kill()
        process.join()
        (bell,) = bells.iterdir()
        os.utime(bell, (0, 0))  # older than one that is just being opened
        connect()
        assert list(bells.iterdir()) == []


def rows(path: Path) -> int:
    """How many rows there are that belong to messages."""
    with closing(sqlite3.connect(path)) as other, other:
        tables = ("kq_message", "kq_ready", "kq_delayed", "kq_held", "kq_dropped")
        total = sum(other.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables)
    other.close()
    return int(total)


def sleep_on_jobs(path: str) -> None:
    engine = SqliteEngine(path)
    take(engine)
    engine.wait(["jobs"], None)


class TestTime:
    @pytest.mark.parametrize("step", [-86_400.0, 86_400.0])
    def test_a_step_of_the_wall_clock_ends_no_lease_and_fires_no_delay(
        self, engine: Engine, connect: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch, step: float
    ) -> None:
        engine.publish([*messages("a"), message("later", delay=3600)])
        held = take(engine)
        right = time.time
        monkeypatch.setattr(time, "time", lambda: right() + step)
        other = connect()
        assert take(other) == []
        assert engine.settle(done(held)) == []
        (seen,) = other.browse("jobs", "delayed")
        assert seen.due is not None
        assert 3590 < seen.due - time.time() <= 3600  # told by the clock that people see now

    def test_a_machine_that_slept_wakes_the_sleeper_with_its_next_beat(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine.publish([message("later", delay=3600)])
        assert take(engine) == []
        descriptor = engine.arm(["jobs"])
        right = time.clock_gettime
        monkeypatch.setattr(time, "clock_gettime", lambda clock: right(clock) + 3601)
        engine.beat()
        assert readable(descriptor, within=5)
        assert [delivery.id for delivery in take(engine)] == ["later"]

    @pytest.mark.parametrize(("slept", "got"), [(3500.0, []), (3700.0, ["later"])])
    def test_delays_go_on_over_a_reboot(
        self, connect: Callable[..., Engine], path: Path, slept: float, got: list[str]
    ) -> None:
        engine = connect()
        engine.declare("jobs", {})
        engine.publish([message("later", delay=3600)])
        engine.close()
        reboot(path, slept)
        assert [delivery.id for delivery in take(connect())] == got

    def test_leases_end_over_a_reboot(self, connect: Callable[..., Engine], path: Path) -> None:
        dead = connect(lease=15)
        dead.declare("jobs", {})
        dead.publish(messages("a"))
        take(dead)
        reboot(path, 20)
        assert [delivery.id for delivery in take(connect())] == ["a"]

    def test_a_clock_that_is_wrong_after_a_reboot_fires_nothing_early(
        self, connect: Callable[..., Engine], path: Path
    ) -> None:
        engine = connect()
        engine.declare("jobs", {})
        engine.publish([message("soon", delay=0.5), message("later", delay=3600)])
        engine.close()
        reboot(path, -1e9)  # no battery: it is long ago again
        again = connect()
        assert take(again) == []
        assert again.wait(["jobs"], 5)
        assert [delivery.id for delivery in take(again)] == ["soon"]


def reboot(path: Path, slept: float) -> None:
    """Make the file look as if it was last used in another boot, so many seconds ago by the wall clock.

    The monotonic clocks of that boot have another origin.
    """
    with closing(sqlite3.connect(path)) as other, other:
        other.execute(
            """UPDATE host_clock SET boot = 'another', wall = wall - ?, awake_base = awake_base + 1e6,
               steady_base = steady_base + 1e6""",
            (slept,),
        )
    other.close()


class TestZombies:
    def test_a_connection_whose_lease_is_over_is_dead_even_if_nobody_noticed(
        self, connect: Callable[..., Engine]
    ) -> None:
        engine = connect(lease=0.1)
        engine.declare("jobs", {})
        engine.publish(messages("a"))
        held = take(engine)
        time.sleep(0.15)  # the lease is real time here
        with pytest.raises(LeaseLost):
            engine.settle(done(held))
        assert [delivery.id for delivery in take(connect())] == ["a"]

    def test_an_unused_queue_expires_and_one_that_is_waited_for_does_not(self, connect: Callable[..., Engine]) -> None:
        engine, other = connect(), connect()
        engine.declare("unused", {"x-expires": 50})
        engine.declare("used", {"x-expires": 50})
        take(engine, queue="used")
        engine.arm(["used"])
        time.sleep(0.1)  # their time is real time here
        other.reserve([])
        assert list(other.queues()) == ["used"]


class TestTheDisk:
    """What is written to a file is in the system's memory first. A power failure takes what is not on the disk."""

    @pytest.fixture
    def log(self, path: Path) -> Path:
        return path.with_name(path.name + "-wal")

    @pytest.fixture
    def lazy(self, tmp_path: Path) -> bool:
        """Whether the system writes to the disk when it is asked to, and tells of it."""
        (tmp_path / "any").write_bytes(b"x" * 8192)
        return Path("/proc/self/io").exists() and unwritten(tmp_path / "any") > 0

    def test_what_was_stored_is_on_the_disk(self, engine: Engine, log: Path, lazy: bool) -> None:
        if not lazy:
            pytest.skip("nobody tells what is not on the disk")
        engine.publish([Message("a", "jobs", b"x" * 8192)])
        assert log.stat().st_size > 8192
        assert unwritten(log) == 0

    def test_who_does_not_want_to_wait_for_the_disk_does_not(self, path: Path, log: Path, lazy: bool) -> None:
        with closing(SqliteEngine(str(path), Options(extra={"synchronous": "normal"}))) as engine:
            engine.declare("jobs", {})
            engine.publish([Message("a", "jobs", b"x" * 8192)])
            assert unwritten(log) > 0 or not lazy

    def test_others_go_on_while_one_waits_for_the_disk(
        self, engine: Engine, connect: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other, disk, stored = connect(), SlowDisk(), threading.Event()
        monkeypatch.setattr(os, "fdatasync", disk.sync)

        def publish() -> None:
            engine.publish(messages("a"))
            stored.set()

        publishing = threading.Thread(target=publish)
        publishing.start()
        assert disk.asked.wait(10)
        assert [delivery.id for delivery in take(other, 1)] == ["a"]
        assert not stored.is_set()
        disk.answers.set()
        publishing.join(10)
        assert stored.is_set()

    def test_a_disk_that_fails_leaves_it_unknown_whether_a_message_is_stored(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(descriptor: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fdatasync", fail)
        with pytest.raises(Unreachable, match="the disk of .* fails") as failed:
            engine.publish(messages("a"))
        assert failed.value.sent
        monkeypatch.undo()
        engine.publish(messages("b"))
        assert [delivery.id for delivery in take(engine, 2)] == ["a", "b"]

    def test_who_is_killed_while_it_waits_for_the_disk_has_stored_what_it_said(
        self, path: Path, engine: Engine
    ) -> None:
        near, far = multiprocessing.Pipe()
        spawned = multiprocessing.get_context("spawn")
        killed = spawned.Process(target=publish_and_wait_for_the_disk, args=(str(path), far))
        killed.start()
        assert near.recv() == "waits"
        killed.kill()
        killed.join()
        assert [delivery.id for delivery in take(engine, 1)] == ["a"]


class SlowDisk:
    """One that has written what it was asked to when it is told so."""

    def __init__(self) -> None:
        self.asked, self.answers = threading.Event(), threading.Event()

    def sync(self, descriptor: int) -> None:
        self.asked.set()
        assert self.answers.wait(10)


def publish_and_wait_for_the_disk(path: str, told: multiprocessing.connection.Connection) -> None:
    def wait(descriptor: object) -> None:
        told.send("waits")
        threading.Event().wait()

    engine = SqliteEngine(path)
    os.fdatasync = wait  # type: ignore[assignment]
    engine.publish(messages("a"))


def unwritten(file: Path) -> int:
    """Bytes of file that are not on the disk yet. It is empty after that."""

    def thrown_away() -> int:
        (line,) = [line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("cancelled_")]
        return int(line.split()[1])

    before = thrown_away()
    os.truncate(file, 0)
    return thrown_away() - before
