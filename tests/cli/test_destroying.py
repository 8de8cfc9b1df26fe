"""Verbs that destroy: they say how much, ask who sits at a terminal, and refuse a program that did not say --yes."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Place, at_a_terminal
from tests.cli.test_schema import fits


@pytest.fixture
def shop(place: Place) -> Place:
    """A queue with two jobs that wait, and one that is buried."""
    place.write("kq.yaml", "url: sqlite:///kq.db\n")
    ids = [place.here("submit", "work", str(n), "--queue", "mail").out.strip() for n in range(3)]
    assert place.here("jobs", "bury", ids[0]).code == 0
    return place


def counts(shop: Place) -> tuple[int, int]:
    """How many wait, and are buried."""
    (mail,) = shop.here("queues", "--json").json
    return mail["ready"], mail["buried"]


def test_a_program_must_say_that_it_means_it(shop: Place) -> None:
    (first, *_) = shop.here("jobs", "--json").json
    for verb in (("queues", "purge", "mail"), ("jobs", "rm", first["id"])):
        said = shop.here(*verb)
        assert (said.code, said.out) == (77, "")
        assert said.err.endswith("Say --yes.\n")
    assert "delete 2 jobs waiting in mail" in shop.here("queues", "purge", "mail").err
    assert counts(shop) == (2, 1)


def test_a_human_is_asked(shop: Place) -> None:
    refused = at_a_terminal(shop, "n\n", "queues", "purge", "mail")
    assert refused.code == 130
    assert "Delete 2 jobs waiting in mail for good?" in refused.err
    assert counts(shop) == (2, 1)
    done = at_a_terminal(shop, "y\n", "queues", "purge", "mail")
    assert (done.code, done.out) == (0, "purged mail: 2 jobs\n")
    assert counts(shop) == (0, 1)


def test_what_is_buried_is_purged_apart(shop: Place) -> None:
    assert shop.here("queues", "purge", "mail", "--buried", "-y").out == "purged mail: 1 job\n"
    assert counts(shop) == (2, 0)
    assert shop.here("queues", "purge", "mail", "--buried").out == "purged mail: 0 jobs\n"


def test_a_misspelt_queue_is_told_with_what_was_probably_meant(shop: Place) -> None:
    for verb in (("queues", "purge", "mial", "--yes"), ("queues", "why", "mial")):
        said = shop.here(*verb)
        assert (said.code, said.err) == (1, "KQ502 there is no queue 'mial'\n  Did you mean 'mail'?\n")
    said = shop.here("jobs", "--queue", "mial", "--json")
    assert (said.code, said.json) == (0, [])
    fits("warning", json.loads(said.err))
    assert shop.here("jobs", "--queue", "mial").err == "there is no queue 'mial' yet. Did you mean 'mail'?\n"
    assert "Did you mean 'mail'?" in shop.here("queues", "pause", "mial").err


def test_a_queue_is_removed_when_nothing_is_in_it(shop: Place) -> None:
    refused = shop.here("queues", "rm", "mail")
    assert (refused.code, refused.err) == (
        1,
        "KQ503 queue 'mail' stays: a job waits in it or runs\n  kq queues why mail tells of it.\n",
    )
    assert counts(shop) == (2, 1)
    assert shop.here("queues", "purge", "mail", "-y").code == 0
    assert shop.here("queues", "rm", "mail", "--reason", "another kind").out == "removed mail\n"
    told = shop.here("jobs", "audit").out
    assert (told.count("removed"), told.count("another kind")) == (1, 1)
    assert shop.here("queues", "rm", "mial").code == 1
