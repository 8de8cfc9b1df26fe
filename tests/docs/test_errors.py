"""Each code that anybody is told has its page in `kq explain`, and so in docs/errors.md."""

from __future__ import annotations

import importlib
import pkgutil
import re

import kq
from kq.cli.explain import read
from kq.errors import all_errors
from tests.docs.pages import ROOT


def test_every_error_has_a_page_that_names_its_class() -> None:
    for module in pkgutil.walk_packages(kq.__path__, "kq."):
        if not re.search(r"__main__|conformance|demo|nursery", module.name):
            importlib.import_module(module.name)
    errors = {kind.code: kind.__name__ for kind in all_errors() if kind.__module__.startswith("kq.")}
    pages = {page.code: page.kind for page in read()}
    assert {code: pages.get(code) for code in errors} == errors
    assert [page.code for page in read()] == sorted(pages)


def test_every_code_that_stands_anywhere_has_a_page() -> None:
    places = [path for folder in ("kq", "transports", "examples") for path in (ROOT / folder).rglob("*.py")]
    told = {code for path in places for code in re.findall(r"\bKQ\d{3}\b", path.read_text())}
    assert told <= {page.code for page in read()}


def test_each_page_says_why_and_what_to_do() -> None:
    for page in read():
        assert re.search(r"^\* why: .+\n\* do: .+", page.text, re.MULTILINE), page.code
