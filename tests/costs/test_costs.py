"""The cost card of docs/performance.md is true: each operation is done, and what it asks of the broker is counted.

`KQ_COSTS=write` lets the test write the card instead.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import kombu
import kombu.exceptions
import pytest

import kq
from kq_transports.engine import NotFound
from tests.costs.card import Card, Cell
from tests.costs.counting import Tally, rabbit_counted, redis_counted, settled, sqlite_counted
from tests.costs.jobs import answer, app
from tests.costs.operations import AT_WORK, OPERATIONS, Operation, World, worker

WRITE = os.environ.get("KQ_COSTS") == "write"
#: So often each is done at most, until it costs what the card says: a busy machine may wake a worker more often, or let
#: it do a part so late that it is not counted; who reads on RabbitMQ what another still holds reads again; and now and
#: then the app asks whether anybody listens to events. The card has the most where a worker has a part in it.
TIMES = 3 if WRITE else 20


@dataclass(frozen=True, slots=True)
class Counted:
    """A broker whose work is counted. store: what the state store does, where that is not the broker."""

    name: str
    url: str
    broker: Tally
    store: Tally | None = None

    def cost(self, act: Callable[[], object]) -> Cell:
        tallies = [each for each in (self.broker, self.store) if each is not None]
        settled(*tallies)
        before = [tally.copy() for tally in tallies]
        act()
        settled(*tallies)
        spent = [tally.since(was) for tally, was in zip(tallies, before, strict=True)]
        return Cell(spent[0].asks, spent[0].work, spent[0].size, *((each.asks, each.work) for each in spent[1:]))


@pytest.fixture(params=["redis", "sqlite", "rabbitmq"])
def counted(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with contextlib.ExitStack() as stack:
        sqlite = stack.enter_context(sqlite_counted(monkeypatch))
        match request.param:
            case "sqlite":
                found = Counted("sqlite", f"sqlite:///{tmp_path}/kq.db", sqlite)
            case "redis":
                url, tally = stack.enter_context(redis_counted(request.getfixturevalue("redis_url")))
                found = Counted("redis", url, tally)
            case _:
                url, tally = stack.enter_context(rabbit_counted(request.getfixturevalue("rabbit_url")))
                found = Counted("rabbitmq", url, tally, sqlite)
        app.close()
        app.configure(url=found.url)
        yield found
        app.close()


def otherwise(
    counted: Counted, prepare: Callable[[], Callable[[], object]], promised: Cell, at_work: bool
) -> Cell | None:
    """What it costs, where that is not what was promised. It was done before: connections are open, queues declared."""
    prepare()()
    cells = list[Cell]()
    while len(cells) < TIMES:
        cells.append(counted.cost(prepare()))
        if not WRITE and cells[-1].keeps(promised, at_most=at_work):
            return None
    cell = Cell.of(cells, max if at_work else min)
    return None if cell.keeps(promised, at_most=at_work) else cell


def fresh(prepare: Operation, world: World, connection: kombu.Connection) -> Callable[[], object]:
    """What prepare gives, with nothing else in the queues: on RabbitMQ to find a job is to look through all."""
    for queue in ("default", "default.buried"):
        with contextlib.suppress(kombu.exceptions.ChannelError, NotFound), connection.channel() as channel:
            channel.queue_purge(queue)
    return prepare(world)


def test_each_operation_costs_what_the_card_says(counted: Counted) -> None:
    with kq.Control(app) as control:
        compare(counted, World(control), OPERATIONS)


def test_jobs_cost_no_more_than_the_card_says(counted: Counted) -> None:
    with kq.Control(app) as control, worker():
        answer.submit("").result(timeout=30)
        compare(counted, World(control), AT_WORK)


def compare(counted: Counted, world: World, operations: Mapping[str, Operation]) -> None:
    """Compare what operations cost with the card, or make it say that where it is wrong."""
    card, wrong = Card(), dict[str, Cell]()
    with app.broker.connection() as connection:
        for name, prepare in operations.items():
            again = partial(fresh, prepare, world, connection)
            cell = otherwise(counted, again, card.cell(counted.name, name), name in AT_WORK)
            if cell is not None:
                wrong[name] = cell
    if WRITE:
        card.write(counted.name, wrong)
        return
    lines = [f"{name}: {cell}, and the card says {card.cell(counted.name, name)}" for name, cell in wrong.items()]
    assert not wrong, "\n".join(
        [*lines, "If that is as it should be, KQ_COSTS=write puts it into docs/performance.md."]
    )


def test_the_card_has_each_operation_and_no_other() -> None:
    assert Card().names() == [*OPERATIONS, *AT_WORK]
