"""What people install: one wheel with two packages, typed, and nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

import kq

ROOT = Path(__file__).parents[1]
INFO = f"kq_jobs-{kq.__version__}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel that this working copy makes."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_two_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    assert {name.split("/")[0] for name in wheel.namelist()} == {"kq", "kq_transports", INFO}


def test_both_packages_are_typed_and_bring_their_suites(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {"kq/py.typed", "kq_transports/py.typed", "kq_transports/engine.py"} <= names
    assert any(name.startswith("kq_transports/conformance/") for name in names)


def test_the_wheel_brings_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    assert "kq = kq.cli:main" in wheel.read(f"{INFO}/entry_points.txt").decode()
    assert f"{INFO}/licenses/LICENSE" in wheel.namelist()


def test_the_web_page_comes_whole_and_with_the_licence_of_what_is_not_ours(wheel: zipfile.ZipFile) -> None:
    for folder in ("static", "templates"):
        files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "kq" / "web" / folder).iterdir()}
        assert len(files) > 3
        assert files <= set(wheel.namelist())
    assert f"{INFO}/licenses/kq/web/static/htmx.LICENSE.txt" in wheel.namelist()
    assert Parser().parsestr(wheel.read(f"{INFO}/METADATA").decode())["License-Expression"] == "MIT AND 0BSD"


def test_the_wheel_says_what_it_needs(wheel: zipfile.ZipFile) -> None:
    metadata = Parser().parsestr(wheel.read(f"{INFO}/METADATA").decode())
    assert (metadata["Name"], metadata["Version"], metadata["Requires-Python"]) == ("kq-jobs", kq.__version__, ">=3.11")
    needs = {
        line.split(";")[0].split("[")[0].rstrip("<>=.,0123456789 ") for line in metadata.get_all("Requires-Dist", [])
    }
    assert {"kombu", "packaging", "redis", "pyyaml", "msgspec", "click", "rich"} <= needs


#: Modules that make objects, and so run code, of bytes that anybody may have written.
UNSAFE = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle"}


def dangers(tree: ast.Module) -> Iterator[str]:
    """What in a module could run code that came in as data."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                yield from (name.name for name in names if name.name.partition(".")[0] in UNSAFE)
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in UNSAFE:
                yield module
            case ast.Call(ast.Name("eval" | "exec" | "compile" | "__import__" as name)):
                yield name
            case ast.Call(ast.Attribute(ast.Name("os"), "system" | "popen" as name)):
                yield name
            case ast.Call(ast.Attribute(ast.Name("yaml"), "unsafe_load" | "full_load" as name)):
                yield name
            case ast.Call(ast.Attribute(ast.Name("yaml"), "load"), keywords=keywords):
                loaders = [ast.unparse(keyword.value) for keyword in keywords if keyword.arg == "Loader"]
                if not loaders or "yaml." in loaders[0]:
                    yield f"yaml.load with {loaders}"
            case ast.keyword("shell", ast.Constant(True)):
                yield "shell=True"


def test_nothing_in_the_wheel_makes_code_of_data(wheel: zipfile.ZipFile) -> None:
    modules = [name for name in wheel.namelist() if name.endswith(".py")]
    assert len(modules) > 100
    assert {name: found for name in modules if (found := list(dangers(ast.parse(wheel.read(name)))))} == {}


def test_what_makes_code_of_data_is_noticed() -> None:
    lines = [
        "import pickle",
        "from marshal import loads",
        "eval(x)",
        "yaml.load(x)",
        "run(x, shell=True)",
        "os.system(x)",
    ]
    assert all(list(dangers(ast.parse(line))) for line in lines)
    assert not list(dangers(ast.parse("yaml.load(x, Loader=loader); json.loads(x); pattern.compile(x)")))


def test_transports_is_a_folder_and_no_package() -> None:
    assert not (ROOT / "transports" / "__init__.py").exists()
