"""`kq init`: a first application that runs as it stands."""

from __future__ import annotations

import subprocess
import sys

from tests.cli.conftest import Place

FILES = {"jobs.py", "kq.yaml", "tests/test_jobs.py"}


def files(place: Place) -> set[str]:
    return {str(path.relative_to(place.folder)) for path in place.folder.rglob("*") if path.is_file()}


def test_it_writes_an_application_and_says_what_to_type_next(place: Place) -> None:
    said = place.kq("init")
    assert said.code == 0
    assert files(place) == FILES
    assert "kq worker" in said.out


def test_it_writes_into_a_folder_that_it_makes_for_the_broker_that_is_named(place: Place) -> None:
    said = place.kq("init", "shop", "--url", "redis://localhost:6379/3", "--json")
    assert set(said.json["files"]) == FILES
    assert "url: redis://localhost:6379/3" in (place.folder / "shop" / "kq.yaml").read_text()
    assert 'kq.App("shop")' in (place.folder / "shop" / "jobs.py").read_text()


def test_a_password_in_the_url_is_for_the_owner_alone_to_read(place: Place) -> None:
    place.kq("init", "open", "--url", "redis://localhost:6379/3")
    place.kq("init", "closed", "--url", "redis://:hush@localhost:6379/3")
    modes = [(place.folder / name / "kq.yaml").stat().st_mode & 0o077 for name in ("open", "closed")]
    assert modes[0] != 0
    assert modes[1] == 0


def test_it_overwrites_nothing(place: Place) -> None:
    place.write("jobs.py", "precious")
    said = place.kq("init")
    assert said.code == 77
    assert "has jobs.py already" in said.err
    assert files(place) == {"jobs.py"}
    assert (place.folder / "jobs.py").read_text() == "precious"


def test_the_test_that_it_writes_passes(place: Place) -> None:
    place.kq("init")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command, cwd=place.folder, env=place.environment(), capture_output=True, text=True, timeout=60
    )
    assert "3 passed" in done.stdout
