"""The SQLite engine under the suite that every engine must pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kq_transports.conformance.engine import EngineSuite
from kq_transports.conformance.engine.world import QUEUE, ids, message, messages, readable, take
from kq_transports.engine import Engine, Options
from kq_transports.sqlite import SqliteEngine


class TestSqliteEngine(EngineSuite):
    def open(self, where: Path, options: Options) -> Engine:
        return SqliteEngine(str(where / "kq.db"), options)


class TestRings:
    """A ring reaches somebody who listens."""

    @pytest.fixture
    def three(self, tmp_path: Path) -> Iterator[list[Engine]]:
        engines: list[Engine] = [SqliteEngine(str(tmp_path / "kq.db")) for _ in range(3)]
        engines[0].declare(QUEUE, {})
        for engine in [*engines[:2], *engines[:2]]:  # twice: the first time tells others of a new lease
            assert take(engine) == []
            engine.arm([QUEUE])
        yield engines
        for engine in engines:
            engine.close()

    def test_one_message_wakes_one_sleeper(self, three: list[Engine]) -> None:
        three[2].publish(messages("a"))
        assert [rung(engine) for engine in three[:2]] == [False, True]

    def test_two_messages_wake_two(self, three: list[Engine]) -> None:
        three[2].publish(messages("a b"))
        assert [rung(engine) for engine in three[:2]] == [True, True]

    def test_who_takes_one_of_several_messages_wakes_another_for_the_rest(self, three: list[Engine]) -> None:
        three[2].publish([message("a", delay=0.05), message("b", delay=0.05)])
        for engine in three[:2]:
            take(engine)  # both were rung, to learn when it is due
            engine.arm([QUEUE])
        assert three[1].wait([QUEUE], 5)
        assert ids(take(three[1], 1)) == "a"
        assert rung(three[0])

    @pytest.mark.parametrize("leave", [lambda engine: engine.close(), lambda engine: engine.release([QUEUE])])
    def test_who_leaves_after_it_was_rung_passes_it_on(
        self, three: list[Engine], leave: Callable[[Engine], None]
    ) -> None:
        three[2].publish(messages("a"))
        leave(three[1])
        assert rung(three[0])

    def test_a_killed_sleeper_is_passed_over(self, three: list[Engine]) -> None:
        three[1]._bell.forget()  # type: ignore[attr-defined] # what the end of its process does
        three[2].publish(messages("a"))
        assert rung(three[0])


def rung(engine: Engine) -> bool:
    return readable(engine._bell.descriptor, within=0)  # type: ignore[attr-defined]
