"""`kq bench` measures each broker and leaves nothing on it."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Place
from tests.cli.test_schema import fits


@pytest.mark.parametrize("broker", ["memory", "sqlite", "redis", "rabbit"])
def test_a_broker_is_measured_and_left_as_it_was(place: Place, broker: str, request: pytest.FixtureRequest) -> None:
    urls = {"memory": "memory://bench", "sqlite": f"sqlite:///{place.folder}/kq.db"}
    url = urls.get(broker) or str(request.getfixturevalue(f"{broker}_url"))
    where = {"KQ_URL": url, "XDG_STATE_HOME": str(place.folder / "state")}
    said = place.kq("bench", "--jobs", "100", "--pool", "thread", "-c", "4", "--json", **where)
    assert said.code == 0, said.err
    fits("bench", said.json)
    assert 0 < said.json["result"]["p50"] <= said.json["result"]["p99"] < 10
    assert min(said.json[step]["rate"] for step in ("submit", "submit_many", "run")) > 1
    if broker != "memory":
        left = [queue["name"] for queue in place.kq("queues", "--json", **where).json]
        assert not [name for name in left if name.startswith("bench-")]


def test_people_get_a_table(place: Place) -> None:
    said = place.kq("bench", "--jobs", "100", "--pool", "thread", "--url", "memory://bench")
    assert said.code == 0, said.err
    assert [line.split("  ")[0] for line in said.out.splitlines()[2:]] == [
        "WHAT",
        "submit one by one",
        "submit in bulk",
        "run",
        "submit to result",
    ]
