"""What kq.Control says, beside what handles say."""

from __future__ import annotations

from pathlib import Path

import kq
from kq.cli.demo_jobs import app, read_document


def test_control_knows_the_end_of_a_job_as_soon_as_its_handle_does(tmp_path: Path) -> None:
    app.configure(url=f"sqlite:///{tmp_path}/kq.db")
    with kq.Worker(app, pool="thread", concurrency=1), kq.Control(app) as control:
        for _ in range(10):
            handle = read_document.submit(__file__, "test")
            handle.result(timeout=20)
            job = control.job(handle.id)
            assert job is not None
            assert job.state is kq.State.COMPLETED
    app.close()
