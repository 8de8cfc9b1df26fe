"""Documentation does not drift: its code runs, its commands and links exist, and what there is has its place in it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import kq
from kq.cli.frame import VERBS, Root
from kq.control.schema import WRITTEN
from kq.errors import all_errors
from kq.values import config
from kq.values.given import load
from scripts import reference
from tests.docs.pages import ALL, ROOT, Page

PATIENCE = 60
README = Page(ROOT / "README.md")
FAILURES = Page(ROOT / "docs" / "failures.md")
REFERENCE = Page(ROOT / "docs" / "reference.md")

#: Characters, as the code has 120: what is longer scrolls sideways in an editor.
WIDTH = 160
#: Written by a script.
GENERATED = {"docs/errors.md", "docs/reference.md"}

of_each_page = pytest.mark.parametrize("page", ALL, ids=lambda page: page.name)


def environment(folder: Path) -> dict[str, str]:
    """That of a program which knows kq and nothing of this machine's settings."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("KQ_")}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "transports")])
    return {**plain, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "XDG_STATE_HOME": str(folder / "state")}


def python(folder: Path, *arguments: str) -> str:
    """What a Python program prints in folder."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def named(text: str) -> str:
    """The module that a block says it is, in a first line like "# shop.py"; "" when it says none."""
    match = re.match(r"# (\w+)\.py$", text.partition("\n")[0])
    return match[1] if match else ""


@of_each_page
def test_the_python_of_a_page_runs_from_top_to_bottom(page: Page, tmp_path: Path) -> None:
    texts = [block.text for block in page.blocks("python")]
    for text in texts:
        if named(text):
            (tmp_path / f"{named(text)}.py").write_text(text)
            python(tmp_path, "-c", f"import {named(text)}")
    rest = "\n".join(text for text in texts if not named(text))
    if rest:
        (tmp_path / "page.py").write_text(rest)
        python(tmp_path, "page.py")


@of_each_page
def test_the_python_that_is_not_run_compiles(page: Page) -> None:
    for block in page.blocks("python notest"):
        compile(block.text, page.name, "exec")


@of_each_page
def test_the_settings_of_a_page_are_settings(page: Page, tmp_path: Path) -> None:
    for block in page.blocks("yaml"):
        (tmp_path / "kq.yaml").write_text(block.text)
        load(file=tmp_path / "kq.yaml", environ={}, folder=tmp_path)


@of_each_page
def test_the_json_of_a_page_is_json(page: Page) -> None:
    for block in page.blocks("json"):
        json.loads(block.text)


@of_each_page
def test_no_line_of_prose_is_wider_than_the_page(page: Page) -> None:
    if page.name not in GENERATED:
        lines = [line for line in page.prose.splitlines() if not line.startswith("|")]  # a row of a table is one line
        assert [line for line in lines if len(line) > WIDTH] == []


@of_each_page
def test_each_command_that_a_page_names_exists_with_its_options(page: Page) -> None:
    for command in page.commands("kq"):
        parse(command)


def parse(command: str) -> None:
    """Understand a command line of kq without carrying it out; raises click.UsageError for what kq does not know."""
    words = [word for word in shlex.split(command)[1:] if word not in ("&", "…") and not word.startswith("[")]
    group: click.Command = Root()
    context: click.Context | None = None
    while isinstance(group, click.Group):
        if not words or words == ["--help"] or "--version" in words:
            return
        context = group.make_context("kq", words, parent=context)
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        name, found, words = group.resolve_command(context, rest)
        assert name is not None
        assert found is not None
        group = found
    with contextlib.suppress(click.MissingParameter):  # `kq submit` speaks of the verb, not of a job
        group.make_context(name, words, parent=context)


def test_a_command_that_does_not_exist_is_noticed() -> None:
    for wrong in (
        "kq frobnicate",
        "kq jobs polish 5",
        "kq worker --polish",
        "kq --polish jobs ls",
        "kq -A x:y demo --no",
    ):
        with pytest.raises(click.UsageError):
            parse(wrong)


@of_each_page
def test_each_make_target_that_a_page_names_exists(page: Page) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {command.split()[1] for command in page.commands("make") if command != "make"} <= targets


@of_each_page
def test_links_lead_somewhere(page: Page) -> None:
    for path, anchor in page.links():
        assert path.exists(), f"{page.name} links to {path}, which does not exist"
        if anchor:
            assert anchor in Page(path).anchors(), f"{page.name} links to {path.name}#{anchor}"


def test_each_failure_that_is_described_is_made_to_happen_by_a_test() -> None:
    described, _, _ = FAILURES.text.partition("\n## The long runs")
    rows = [line for line in described.splitlines() if line.startswith("| ") and not line.startswith("| what |")]
    named = [re.fullmatch(r"`(test_\w+)`", row.strip("|").rpartition("|")[2].strip()) for row in rows]
    assert [row for row, name in zip(rows, named, strict=True) if name is None] == []
    places = ("tests", "kq/conformance", "transports/kq_transports/conformance")
    code = "".join(path.read_text() for place in places for path in sorted((ROOT / place).rglob("*.py")))
    assert [name[1] for name in named if name and f"def {name[1]}(" not in code] == []


def test_every_page_and_example_is_in_the_index() -> None:
    index = Page(ROOT / "docs" / "README.md")
    linked = {path for path, _ in index.links()}
    wanted = {page.path for page in ALL if page.path.parent == index.path.parent} - {index.path}
    assert wanted | set((ROOT / "examples").glob("*.py")) <= linked


@pytest.mark.parametrize("files", ["kq/**/*.py", "transports/kq_transports/*.py", "transports/kq_transports/amqp/*.py"])
def test_the_map_names_every_module(files: str) -> None:
    words = set(re.findall(r"\w+", Page(ROOT / "docs" / "architecture.md").text))
    found = {path.stem for path in ROOT.glob(files) if "conformance" not in path.parts}
    modules = {name for name in found if not name.startswith("__")}
    assert not modules - words, "give them a place in docs/architecture.md"


def test_each_decision_has_a_number_of_its_own() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for number, page in enumerate(pages, 1):
        assert page.read_text().startswith(f"# {number}. "), page.name


def test_the_reference_is_what_the_code_says() -> None:
    assert REFERENCE.text == reference.page(), "run `make reference`"
    assert reference.SNAPSHOT.read_text() == reference.snapshot(), "run `make reference`"
    assert reference.CLI.read_text() == WRITTEN.read_text(), "run `make reference`"


def test_the_errors_are_what_kq_explain_says() -> None:
    assert Page(reference.ERRORS).text == reference.errors_page(), "run `make reference`"


#: Verbs that print no JSON but logs, or a show for people.
TALK = {"demo", "dev", "worker", "control", "metrics"}


def test_each_verb_says_in_the_schema_what_it_prints_as_json() -> None:
    written = json.loads((ROOT / "docs" / "schema" / "cli-1.json").read_text())["$defs"]
    root = click.Context(Root(), info_name="kq")
    found = [click.Context(root.command.get_command(root, verb), root, verb) for verb in VERBS]  # type: ignore[attr-defined]
    verbs = {leaf.command_path.removeprefix("kq ") for verb in found for leaf in reference.leaves(verb)}
    assert sorted(verbs - TALK - set(written)) == []


def test_what_is_public_has_its_place_in_the_reference() -> None:
    text = REFERENCE.text
    errors = [kind.code for kind in all_errors() if kind.__module__.startswith("kq.")]
    wanted = (
        [f"`kq.{name}`" for name in kq.__all__] + [f"`{key}`" for key in config.SCHEMA] + [f"| {e} |" for e in errors]
    )
    wanted += [f"### `kq {verb}" for verb in VERBS]
    assert [each for each in wanted if each not in text] == []


def test_no_message_names_a_command_that_is_not_there() -> None:
    for path in (ROOT / "kq").rglob("*.py"):
        for command in re.findall(r"\bkq (?:jobs|queues|workers|effects) [a-z]+", path.read_text()):
            parse(command)


def strange_options(text: str) -> Iterator[str]:
    """Each mention of a verb of kq in text, also amid prose, with an option that it has not got."""
    for mention in _MENTION.finditer(text):
        command: click.Command = Root()
        context = click.Context(command, info_name="kq")
        known = _options(command)
        for word in mention[1].split():
            if isinstance(command, click.Group) and (below := command.get_command(context, word.rstrip(".,:"))):
                command, context = below, click.Context(below, context, word)
                known |= _options(below)
            elif isinstance(command, Root):
                break  # `kq does`: no verb
            elif isinstance(command, click.Group) and (usual := command.get_command(context, "ls")):
                command = usual  # `kq jobs --state buried`
                known |= _options(usual)
            if (option := re.fullmatch(r"(--?[a-zA-Z][\w-]*)[.,:]?", word)) and option[1] not in known:
                yield f"kq{mention[1]}"


_MENTION = re.compile(r"\bkq(?=((?: +(?!kq )[\w{}./:$+,-]+)+))")


def _options(command: click.Command) -> set[str]:
    """What the options of a command are called."""
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"-h", "--help"}


def test_an_option_that_does_not_exist_is_noticed_amid_prose() -> None:
    for wrong in ("Say kq jobs kick {id} --polish.", "kq worker --polish, or", "kq jobs --polish", "kq status -Z"):
        assert [*strange_options(f"kq does it. {wrong}")], wrong
    assert not [*strange_options("kq jobs ls --queue {q} --group, kq jobs --state buried; kq worker -Q a; kq is -Z")]


def test_whatever_names_a_command_names_options_that_it_has() -> None:
    places = ("kq/**/*.py", "kq/**/*.html", "kq/**/*.md", "docs/**/*.md", "*.md", "examples/*.py", "configs/**/*.*")
    paths = {path for place in places for path in ROOT.glob(place) if path.is_file()}
    found = {path.relative_to(ROOT).as_posix(): [*strange_options(path.read_text())] for path in paths}
    assert {name: mentions for name, mentions in found.items() if mentions} == {}
    assert len(paths) > 300


def test_the_first_example_of_the_readme_is_the_first_of_the_examples() -> None:
    (shop,) = [block.text for block in README.blocks("python") if named(block.text) == "shop"]
    hello = {code(line) for line in (ROOT / "examples" / "hello.py").read_text().splitlines()}
    lines = [code(line) for line in shop.splitlines() if not line.startswith(("app = ", "    ..."))]
    assert [line for line in lines if line not in hello] == []


def code(line: str) -> str:
    """A line without its comment and indentation."""
    return line.partition("#")[0].strip()


def test_the_first_commands_of_the_readme_do_what_they_show(tmp_path: Path) -> None:
    (shop,) = [block.text for block in README.blocks("python") if named(block.text) == "shop"]
    (tmp_path / "shop.py").write_text(shop)
    (shown,) = [block.text for block in README.blocks("") if "python shop.py" in block.text]
    worker, script, listing = [line.removeprefix("$ ").partition("#")[0] for line in re.findall(r"^\$.*", shown, re.M)]
    background = subprocess.Popen(
        [sys.executable, "-m", *shlex.split(worker.replace("&", ""))],
        cwd=tmp_path,
        env=environment(tmp_path),
        stderr=subprocess.DEVNULL,
    )
    try:
        printed = python(tmp_path, *shlex.split(script)[1:])
        assert printed in shown
        assert "default" in python(tmp_path, "-m", *shlex.split(listing))
    finally:
        background.send_signal(signal.SIGTERM)
        assert background.wait(PATIENCE) == 0
