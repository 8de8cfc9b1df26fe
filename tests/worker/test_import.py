"""An import that does not end: the worker can be told to end, and what ran before goes on."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import psutil
import pytest

from kq.app import App
from kq.cli.failing import exit_code_of
from kq.clock import SYSTEM
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.processes import lives, nurseries, status
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import Gate
from kq.errors import AppNotFound, KqError, NotStarted
from kq.worker import Worker
from kq.worker.ears import NOBODY, Ears
from kq.worker.pool import Pool
from tests.brokers import OnMemory
from tests.worker.jobs import WHERE, Odd
from tests.worker.world import WorkerWorld

#: Code that hangs in the process that forks executors, and leaves word of that.
HANGS = """
import pathlib, time
if pathlib.Path("/proc/self/comm").read_text() == "kq-nursery\\n":
    pathlib.Path("imports").touch()
    time.sleep(600)
"""
CODE = "import kq, os\napp = kq.App('shop', queue=os.environ['KQ_CONTRACT_QUEUE'])\n"


def version(name: str) -> str:
    return f"{CODE}@app.job(name='version')\ndef version(): return {name!r}\n"


class TestTheFirstImport(WorkerWorld):
    @pytest.fixture
    def hanging(self, tmp_path: Path) -> Callable[[], bool]:
        (tmp_path / "shop.py").write_text(HANGS + version("old"))
        return (tmp_path / "imports").exists

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_that_hangs_does_not_keep_a_worker_from_ending(
        self, crew: Crew, hanging: Callable[[], bool], number: int
    ) -> None:
        worker = crew.program("-A", "shop:app", ready=False, grace=60)
        eventually(hanging, "it imports")
        told = time.monotonic()
        worker.send(number)
        assert worker.wait() == 0
        assert time.monotonic() - told < 5.0
        assert not crew.left_behind()

    def test_that_hangs_is_given_up_for_new_code(
        self, app: App, crew: Crew, hanging: Callable[[], bool], tmp_path: Path
    ) -> None:
        worker = crew.program("-A", "shop:app", ready=False)
        eventually(hanging, "it imports")
        (tmp_path / "shop.py").write_text(version("of another name"))
        worker.send(signal.SIGHUP)
        worker.ready()
        assert app.submit("version").result(10) == "of another name"

    @pytest.mark.parametrize(("how", "error"), [("os._exit(3)", AppNotFound), ("os.kill(os.getpid(), 9)", NotStarted)])
    def test_that_ends_its_process_is_a_matter_of_the_application_unless_it_was_killed(
        self, crew: Crew, tmp_path: Path, how: str, error: type[KqError]
    ) -> None:
        ends = f'import os\nif open("/proc/self/comm").read() == "kq-nursery\\n":\n    {how}\n'
        (tmp_path / "shop.py").write_text(ends + version("never"))
        worker = crew.program("-A", "shop:app", ready=False)
        assert worker.wait() == exit_code_of(error())
        assert f"\n{error.code} the process that imports shop:app ended with status" in f"\n{worker.said()}"


class TestInTime(OnMemory):
    application = WHERE

    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """These tests run the worker in this process, and do not wait for as long as people do."""
        for module in ("pool", "trial"):
            monkeypatch.setattr(f"kq.worker.{module}.STILL_IMPORTS", 0.5)
            monkeypatch.setattr(f"kq.worker.{module}.IMPORTS_WITHIN", 2.0)
        monkeypatch.syspath_prepend(str(tmp_path))

    def test_what_does_not_end_is_ended(self, app: App, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "endless.py").write_text("import time\ntime.sleep(600)\n")
        worker = Worker(app, where="endless:app")
        with pytest.raises(NotStarted, match="the process that imports endless:app ended with status -9"):
            worker.start()
        worker.stop()
        assert "told nothing for 2 s: it is killed, and the application is not imported" in caplog.text
        assert not nurseries(psutil.Process())

    def test_a_nursery_that_was_stopped_is_told_to_go_on(
        self,
        app: App,
        queue: str,
        gate: Gate,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr("kq.worker.pool.IMPORTS_WITHIN", 60.0)  # it is to be done, on a busy machine
        waits = f"import os, time\nwhile not os.path.exists({gate.path!r}): time.sleep(0.01)\n"
        (tmp_path / "waits.py").write_text(f"{waits}from tests.worker.jobs import app\n")
        worker = Worker(app, queues=[queue], concurrency=1, where="waits:app")
        starting = Thread(target=worker.start)
        starting.start()
        (nursery,) = eventually(lambda: nurseries(psutil.Process()), "it imports")
        nursery.suspend()
        eventually(lambda: status(nursery) == psutil.STATUS_STOPPED, "it is stopped")
        gate.open()
        starting.join(30)
        assert Odd(app).add.submit(1, 2).result(10) == 3
        worker.stop()
        assert "told nothing for 0.5 s of the application, which it imports" in caplog.text

    def test_new_code_whose_import_does_not_end_is_not_taken(self, tmp_path: Path) -> None:
        (tmp_path / "endless.py").write_text("import time\ntime.sleep(600)\n")
        pool = Pool("endless:app", "memory://trial", "", "process", 1, SYSTEM, lambda ends: None)
        ears, told = Ears(pool), list[str]()
        pool.trial.begin(told.append)

        def look() -> list[str]:
            ears.wait(0.05, NOBODY)
            if SYSTEM.monotonic() >= pool.due:
                pool.attend()
            return told

        assert eventually(look, "it is given up") == ["it was not imported within 2.0s"]
        assert pool.trial.descriptor is None
        pool.close()
        ears.close()
        pool.lapse.close()


class TestNewCode(WorkerWorld):
    """HUP, and what is found out of the new code meanwhile."""

    @pytest.fixture
    def shop(self, tmp_path: Path) -> Path:
        shop = tmp_path / "shop.py"
        shop.write_text(version("old"))
        return shop

    def test_that_hangs_leaves_the_old_at_work_until_there_is_other_code(
        self, app: App, crew: Crew, shop: Path
    ) -> None:
        worker = crew.program("-A", "shop:app")
        self.hangs(worker.supervisor, shop, lambda: worker.send(signal.SIGHUP))
        assert app.submit("version").result(10) == "old"
        shop.write_text(version("mended at last"))
        worker.send(signal.SIGHUP)
        worker.ready(times=2)
        assert app.submit("version").result(10) == "mended at last"
        eventually(lambda: len(worker.tree()) == 3, "nothing is left of the others")

    def test_that_hangs_does_not_keep_a_worker_from_ending(self, crew: Crew, shop: Path) -> None:
        worker = crew.program("-A", "shop:app")
        self.hangs(worker.supervisor, shop, lambda: worker.send(signal.SIGHUP))
        worker.stop()
        assert worker.process.returncode == 0
        assert not crew.left_behind()

    def test_that_is_tried_when_the_supervisor_is_killed_leaves_nobody_and_the_job_runs_elsewhere(
        self, app: App, crew: Crew, shop: Path, diary: Diary, gate: Gate
    ) -> None:
        shop.write_text(f"{version('old')}from kq.conformance.contract import jobs\napp.job(name='hold')(jobs.hold)\n")
        worker = crew.program("-A", "shop:app")
        heir = crew.program("-A", "shop:app", ready=False)
        job = app.submit("hold", gate.path)
        (start,) = eventually(lambda: diary.starts(job.id), "it runs")
        heir.ready()
        first, other = (worker, heir) if start.pid in {each.pid for each in worker.tree()} else (heir, worker)
        self.hangs(first.supervisor, shop, lambda: first.send(signal.SIGHUP))
        processes = first.tree()
        first.supervisor.kill()
        first.wait()
        eventually(lambda: not any(map(lives, processes)), "nobody is left", within=2)
        dead = time.time()
        eventually(lambda: len(diary.starts(job.id)) == 2, "it runs elsewhere", within=2 * self.lease)
        assert diary.starts(job.id)[1].at > dead
        gate.open()
        assert job.result(10) in {each.pid for each in other.tree()}

    def hangs(self, supervisor: psutil.Process, shop: Path, tell: Callable[[], None]) -> None:
        """A second nursery imports code that hangs."""
        old = shop.read_text()
        shop.write_text(f"{HANGS}{old}")
        tell()
        eventually((shop.parent / "imports").exists, "it imports")
        assert len(nurseries(supervisor)) == 2
