"""`kq explain`: each code that anybody is told has its page."""

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest

import kq
from kq.cli.explain import find, read
from kq.cli.failing import NotFound
from kq.errors import all_errors
from tests.cli.conftest import ROOT, Place


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


@pytest.mark.parametrize("name", ["KQ302", "kq302", "302", "BrokerUnreachable"])
def test_a_page_is_found_by_its_code_or_its_class(place: Place, name: str) -> None:
    said = place.kq("explain", name)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("KQ302 BrokerUnreachable: the broker did not answer in time\n")
    assert "  why:  " in said.out
    assert max(map(len, said.out.splitlines())) <= 100


def test_a_code_that_nobody_knows_is_told_with_what_was_probably_meant(place: Place) -> None:
    said = place.kq("explain", "KQ30")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("KQ502 no error has the code 'KQ30'\n  Did you mean 'KQ30")
    with pytest.raises(NotFound):
        find(read(), "x")


def test_without_a_code_all_are_listed(place: Place) -> None:
    assert [line.split()[0] for line in place.kq("explain").out.splitlines()[1:]] == [page.code for page in read()]
