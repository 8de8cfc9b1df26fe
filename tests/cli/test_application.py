"""Finding the application that -A, KQ_APP or the config file names, and saying what is wrong with it."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Place

APP = "import kq\napp = kq.App('shop', 'memory://x')\n@app.job\ndef add(a: int, b: int) -> int:\n    return a + b\n"


@pytest.mark.parametrize("where", [("-A", "jobs:app"), ("-A", "jobs.py:app"), ("-A", "jobs")])
def test_the_app_is_found_in_the_working_directory(place: Place, where: tuple[str, ...]) -> None:
    place.write("jobs.py", APP)
    assert place.kq(*where, "submit", "add", "1", "2").code == 0


def test_the_environment_and_the_config_file_name_it_too(place: Place) -> None:
    place.write("jobs.py", APP)
    assert place.kq("submit", "add", "1", "2", KQ_APP="jobs:app").code == 0
    place.write("kq.yaml", "app: jobs:app\n")
    assert place.kq("submit", "jobs.add", "1", "2").code == 0


def test_without_any_the_likely_one_is_named(place: Place) -> None:
    place.write("shop.py", APP)
    said = place.kq("worker")
    assert said.code == 78
    assert said.err == "KQ102 no application is named\n  Did you mean -A shop:app? Or set KQ_APP, or app: in kq.yaml.\n"


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nowhere:app", "there is no module 'nowhere'"),
        ("nowhere.py:app", "there is no file"),
        ("jobs:ap", "'ap' in jobs does not exist"),
        ("jobs:add", "'add' in jobs is no kq.App"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(place: Place, where: str, message: str) -> None:
    place.write("jobs.py", APP)
    said = place.kq("-A", where, "worker")
    assert said.code == 78
    assert message in said.err
    assert said.err.startswith("KQ102 ")
    assert len(said.err.splitlines()) == 2


def test_a_module_that_raises_is_shown_with_its_own_lines_only(place: Place) -> None:
    place.write("jobs.py", "import shop.prices\n")
    place.write("shop/prices.py", "def table():\n    return {}['euro']\n\nTABLE = table()\n")
    said = place.kq("-A", "jobs:app", "worker")
    assert said.code == 78
    assert said.err.splitlines()[0] == "KQ102 jobs:app can't be imported: KeyError: 'euro'"
    assert "shop/prices.py" in said.err
    assert "importlib" not in said.err
    assert "kq/loading.py" not in said.err


def test_a_module_with_a_syntax_error_is_shown_with_the_line(place: Place) -> None:
    place.write("jobs.py", "import kq\napp = kq.App(\n")
    said = place.kq("-A", "jobs:app", "worker")
    assert said.code == 78
    assert "can't be imported: SyntaxError: '(' was never closed (jobs.py, line 2)" in said.err


def test_a_module_that_ends_the_program_is_shown_with_that_line(place: Place) -> None:
    place.write("jobs.py", "import sys\nsys.exit(3)\n")
    said = place.kq("-A", "jobs:app", "worker")
    assert said.code == 78
    assert said.err.splitlines()[0] == "KQ102 jobs:app can't be imported: SystemExit: 3"
    assert "sys.exit(3)" in said.err


def test_a_module_that_imports_once_only_is_shown_with_its_own_lines(place: Place) -> None:
    place.write("jobs.py", APP + "import os\nos.mkdir('taken')\n")
    said = place.kq("-A", "jobs:app", "--url", "sqlite:///kq.db", "worker")
    assert said.code == 78
    told, *notes = [line for line in said.err.splitlines() if "has the seat" not in line]
    assert told == "KQ102 jobs:app does not import: FileExistsError: [Errno 17] File exists: 'taken'"
    assert any("os.mkdir('taken')" in note for note in notes)


def test_a_package_that_the_module_needs_is_named(place: Place) -> None:
    place.write("jobs.py", "import no_such_package\n")
    said = place.kq("-A", "jobs:app", "worker")
    assert said.code == 78
    assert "No module named 'no_such_package'" in said.err
    assert "Install it for " in said.err
