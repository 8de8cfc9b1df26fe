"""What runs instead: jobs made with `|`, and how a job goes on as the next job type and is put back."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from kq.app import App
from kq.control import Control
from kq.errors import ConfigError, MessageError
from kq.values.fallback import Form, next_of
from kq.values.job import FALLBACKS, Counters, Job, Settings
from kq.values.message import (
    Attempt,
    First,
    Head,
    Stage,
    decode_body,
    decode_head,
    encode_bodies,
    encode_body,
    encode_head,
    shares_arguments,
    turned,
    with_arguments,
)
from kq.values.policy import Fixed
from tests.unit.strategies import HEADS, JSON, TEXT

TRIED = Attempt(number=1, worker="w", started=0.0, ended=1.0, outcome="raised", type="render")
SIMPLE, NAIVE = Stage("simple", "small", timeout=5.0, retry_policy=Fixed().to_data()), Stage("naive")


def job(type: str, *args: Any, **said: Any) -> Job[Any]:
    return Job(type, type, args, {}, Settings(**said))


# Jobs.


def test_a_job_or_else_others_is_a_value_that_can_be_compared_and_read() -> None:
    first, second, third = job("render", "cat.png"), job("simple", 1), job("naive")
    assert (first | second | third).fallback == (second, third)
    assert first | second | third == first | (second | third)
    assert str(first | second) == "render('cat.png') | simple(1)"
    assert first.fallback == ()


def test_the_id_and_what_is_the_whole_jobs_are_the_first_ones() -> None:
    both = job("render", priority=9, unique="cat", delay=5.0) | job("simple", priority=1, queue="small")
    assert (both.id, both.type, both.settings) == ("render", "render", Settings(priority=9, unique="cat", delay=5.0))


@pytest.mark.parametrize("said", [{"delay": 1}, {"hold": 1.0}, {"at": 1}, {"deadline": 1}, {"unique": "cat"}])
def test_what_is_the_whole_jobs_is_not_said_of_another(said: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=f"simple runs instead of render: say {next(iter(said))} of that one, the first"
    ):
        job("render") | job("simple", **said)


def test_only_a_job_runs_instead_of_a_job_and_not_too_many() -> None:
    with pytest.raises(TypeError):
        job("render") | "simple"  # type: ignore[operator]
    many = job("render")
    for _ in range(FALLBACKS):
        many |= job("simple")
    with pytest.raises(ValueError, match="more than 8 jobs instead of render"):
        many | job("naive")


# Job types.


def test_arguments_that_do_not_fit_a_fallback_are_refused_in_the_callers_line() -> None:
    app = App(url="memory://")

    @app.job(name="simple")
    def simple(path: str) -> None: ...

    @app.job(name="render", fallback=[simple, "elsewhere"])
    def render(path: str, width: int = 0) -> None: ...

    assert render.fallback == ("simple", "elsewhere")
    render.job("cat.png")
    with pytest.raises(TypeError, match=r"simple: .*width.*\(it runs instead of render when that gives up\)"):
        render.job("cat.png", width=3)


@pytest.mark.parametrize(
    ("fallback", "reason"),
    [
        ("simple", r"render: fallback is a list of job types; write fallback=\[…\]"),
        (["render"], "render can't run instead of itself"),
        (["other"] * 9, "render has 9 fallbacks, more than 8"),
    ],
)
def test_a_fallback_that_makes_no_sense_is_refused_where_it_is_written(fallback: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        App(url="memory://").job(name="render", fallback=fallback)(len)


def test_a_message_says_what_runs_instead_only_where_the_job_does() -> None:
    app = App(url="memory://")

    @app.job(name="simple", queue="small")
    def simple(path: str) -> None: ...

    @app.job(name="render", fallback=[simple])
    def render(path: str) -> None: ...

    assert "fallback" not in app.envelope(render.job("cat.png")).headers
    envelope = app.envelope(render.job("cat.png") | simple.options(timeout=3, retry_policy=Fixed(retries=1)).job("dog"))
    assert decode_head(envelope.headers).fallback == (
        Stage("simple", "small", timeout=3, retry_policy=Fixed(retries=1).to_data()),
    )
    assert decode_body(envelope.body) == (["cat.png"], {})
    assert decode_body(turned(envelope.body, 0, 1)) == (["dog"], {})


# Jobs that humans change.


@pytest.fixture
def app() -> Iterator[App]:
    """An app whose jobs wait where nobody takes them."""
    app = App(url=f"memory://fallback-{uuid.uuid4()}")

    @app.job(name="simple")
    def simple(path: str) -> None: ...

    @app.job(name="render", fallback=[simple])
    def render(path: str, width: int = 0) -> None: ...

    yield app
    app.close()


def test_an_edit_fits_all_types_that_get_the_arguments(app: App) -> None:
    waiting = app.submit("render", "cat.png")
    with Control(app) as control:
        assert control.edit(waiting.id, args=["dog.png"]) == ("args.0",)
        with pytest.raises(TypeError, match="simple: .*width"):
            control.edit(waiting.id, args=["dog.png"], kwargs={"width": 3})


def test_an_edit_touches_no_arguments_but_those_of_the_type_that_is_next(app: App) -> None:
    waiting = app.submit(app.jobs["render"].job("cat.png") | app.jobs["simple"].job("cow.png"))
    with Control(app) as control:
        assert control.edit(waiting.id, args=["dog.png"], kwargs={"width": 3}) == ("args.0", "kwargs.width")
        with pytest.raises(TypeError, match="render: "):
            control.edit(waiting.id, args=["dog.png", 1, 2])
        found = control.job(waiting.id)
        assert found is not None
        assert found.types == ("render", "simple")
        assert found.headers["fallback"] == [{"type": "simple", "queue": "default"}]
    inspector = app.inspector()
    (seen,) = inspector.find("default", [waiting.id])
    assert decode_body(turned(seen.body, 0, 1)) == (["cow.png"], {})
    inspector.close()


# A job on its way.


def test_a_job_goes_on_as_the_next_type_with_its_history_and_new_counters() -> None:
    head = Head(id="7", type="render", failed=3, lost=1, timeout=9.0, deadline=8.0, unique="cat", history=(TRIED,))
    form = Form(head, encode_body(["cat.png"], {}), "images").next([SIMPLE, NAIVE])
    assert (form.queue, form.body) == ("small", encode_body(["cat.png"], {}))
    assert form.head == Head(
        id="7",
        type="simple",
        timeout=5.0,
        deadline=8.0,
        unique="cat",
        retry_policy=Fixed().to_data(),
        degraded_by=1,
        fallback=(SIMPLE, NAIVE),
        first=First("render", "images", 9.0, None, assumed=True),
        history=(TRIED,),
    )
    last = form.next([SIMPLE, NAIVE])
    assert (last.queue, last.head.type, last.head.degraded_by, last.head.timeout) == ("small", "naive", 2, None)
    assert last.head.first == form.head.first
    assert next_of(last.head) is None


@given(
    HEADS, some.lists(some.tuples(some.lists(JSON, max_size=2), some.dictionaries(TEXT, JSON, max_size=2)), max_size=4)
)
def test_a_job_that_went_through_all_its_types_is_put_back_as_it_was(head: Head, arguments: list[Any]) -> None:
    head = msgspec.structs.replace(head, degraded_by=0, first=None, fallback=None, failed=0, lost=0, infra=0)
    stages = tuple(Stage(f"t{number}", "q") for number, _ in enumerate(arguments))
    bodies = [encode_body(["first"], {}), *(encode_body(*each) for each in arguments)]
    for said in (head, msgspec.structs.replace(head, fallback=stages)):
        before = form = Form(said, encode_bodies(bodies) if said.fallback else bodies[0], "home")
        for number in range(len(stages)):
            form = form.next(stages)
            assert decode_head(encode_head(form.head)) == form.head
            if said.fallback:
                assert decode_body(form.body) == decode_body(bodies[number + 1])
        back = form.put_back()
        assert (back.head, back.queue) == (before.head, before.queue)
        assert decode_body(back.body) == decode_body(before.body)


def test_a_stage_without_arguments_of_its_own_gets_those_of_the_first() -> None:
    body = b'{"args":["first"],"instead":[null,{"args":["second"]}]}'
    second = turned(body, 0, 1)
    assert decode_body(second) == (["second"], {})
    assert decode_body(turned(second, 1, 2)) == (["first"], {})
    assert decode_body(turned(turned(second, 1, 2), 2, 0)) == (["first"], {})


def test_arguments_are_changed_without_touching_those_of_others() -> None:
    body = encode_bodies([encode_body(["cat"], {}), encode_body(["dog"], {})])
    changed = with_arguments(body, ["cow"], {"a": 1})
    assert decode_body(changed) == (["cow"], {"a": 1})
    assert decode_body(turned(changed, 0, 1)) == (["dog"], {})
    for other in (encode_body(["cat"], {}), b"\xff", b"{"):
        assert with_arguments(other, ["cow"], {}) == encode_body(["cow"], {})
    assert (shares_arguments(changed), shares_arguments(encode_body(["cow"], {}))) == (False, True)


@pytest.mark.parametrize("instead", ["7", "[7]", '["x"]', '[{"args": 7}]', '{"args": []}'])
def test_what_can_not_be_the_arguments_of_others_makes_a_body_unusable(instead: str) -> None:
    body = f'{{"args": [], "instead": {instead}}}'.encode()
    with pytest.raises(MessageError):
        decode_body(body)


def test_what_is_no_body_stays_as_it_is() -> None:
    assert turned(b"\xff", 0, 1) == b"\xff"


def test_counters_begin_anew_with_each_type() -> None:
    form = Form(Head(id="7", type="render", failed=3, infra=2), b"{}", "images").next([NAIVE])
    assert form.head.counters == Counters()
