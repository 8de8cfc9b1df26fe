"""Who reads a worker's log, and stops."""

from __future__ import annotations

import fcntl
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from kq.conformance.contract.waiting import eventually
from tests.worker.jobs import WHERE, Odd
from tests.worker.world import WorkerWorld


class TestAReaderWhoStops(WorkerWorld):
    @pytest.fixture
    def reader(self, environment: dict[str, str], queue: str) -> Iterator[int]:
        """Where the log of a worker is to be read, that tells of each job."""
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4 * mmap.PAGESIZE)  # one page takes one line at a time
        worker = subprocess.Popen(
            [sys.executable, "-m", "kq", "-v", "-A", WHERE, "worker", "--no-control", "-c", "1", "-Q", queue],
            env={**os.environ, **environment},
            stderr=writer,
        )
        os.close(writer)
        try:
            yield reader
        finally:
            worker.terminate()
            code = worker.wait(30)
            os.close(reader)
        assert code == 0

    def test_keeps_no_worker_from_its_jobs(self, jobs: Odd, reader: int) -> None:
        for number in range(200):
            assert jobs.add.submit(number, 1).result(20) == number + 1
        os.set_blocking(reader, False)
        said = ""

        def read() -> bool:
            nonlocal said
            jobs.add.submit(0, 0).result(20)
            said += os.read(reader, 1 << 16).decode()
            return said.count("completed") > 200

        eventually(read, "he has all lines when he reads again")
        assert "are lost" not in said
