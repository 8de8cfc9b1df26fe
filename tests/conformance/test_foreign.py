"""A transport of another package is a broker of kq by what its package says of it, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from kq.app import App
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.world import ContractWorld


class TestATransportOfAnotherPackage(ContractWorld):
    @pytest.fixture
    def broker_url(self, lightning: None, tmp_path: Path) -> str:
        return f"lightning:///{tmp_path}/strikes.db"

    def test_workers_do_its_jobs_and_results_lie_in_a_file_beside(
        self, app: App, jobs: Jobs, crew: Crew, tmp_path: Path
    ) -> None:
        crew.program()
        assert jobs.add.submit(1, 2).result(20) == 3
        assert (tmp_path / "strikes.db").exists()
        assert Path(app.address.state.removeprefix("sqlite:///")).parent == tmp_path / "state" / "kq"

    def test_the_doctor_finds_it_well(self, app: App, crew: Crew, broker_url: str) -> None:
        crew.program()
        with crew.start("import sys, kq.cli; sys.argv = ['kq', 'doctor']; kq.cli.main()") as doctor:
            said, _ = doctor.communicate(timeout=60)
        assert doctor.returncode == 0, said
        assert f"ok    URL: {broker_url}" in said
        assert "results and worker records are kept in a file of this host" in said
