"""`kq explain`: pages are found by code and by class. That every code has one is tested with the docs."""

from __future__ import annotations

import pytest

from kq.cli.explain import find, read
from kq.errors import NotFound
from tests.cli.conftest import Place


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
