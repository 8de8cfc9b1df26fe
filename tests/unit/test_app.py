"""An app and its job types: what is wrong about them is told in the line that says it, before anything is submitted."""

from __future__ import annotations

from typing import Any

import pytest

from kq.app import App
from kq.errors import ConfigError, JobRevoked
from kq.values.job import State


def draw() -> None:
    """A function to be a job type."""


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"on_timeout": "explode"}, "on_timeout 'explode' is none; use one of retry"),
        ({"on_lost": "revoke"}, "on_lost 'revoke' is none; use one of retry, fallback, bury"),
        ({"max_lost": 0}, "max_lost 0 is out of range; use 1 or more"),
        ({"max_infra": -1}, "max_infra -1 is out of range"),
        ({"keep": -1}, "keep -1 s is less than nothing"),
        ({"failures": {"x": "y"}}, "x is of class 'y'; use one of"),
        ({"priority": 11}, "priority 11 is out of range"),
    ],
)
def test_an_option_of_a_job_type_that_means_nothing_is_refused(said: dict[str, Any], reason: str) -> None:
    app = App("shop")
    with pytest.raises(ValueError, match=reason):
        app.job(**said)(draw)
    assert not app.jobs


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"key": "order {number}"}, r"key 'order \{number\}' is no function; use a function of the job's arguments"),
        ({"check": True}, "check True is no function"),
        ({"remember": "1 year"}, "can't be remembered for '1 year'; use seconds"),
        ({"keep": "1h"}, "keep '1h' is no number; use seconds"),
    ],
)
def test_what_is_no_value_of_an_effect_is_refused_where_it_is_said(said: dict[str, Any], reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        App("shop").effect(**said)(draw)


@pytest.mark.parametrize("setting", ["lease", "submit_timeout", "keep"])
def test_a_duration_of_an_app_that_is_text_is_refused(setting: str) -> None:
    with pytest.raises(TypeError, match=f"{setting} '5m' is no number; use seconds"):
        App("shop", **{setting: "5m"})  # type: ignore[arg-type]


@pytest.mark.parametrize("decorate", [App.job, App.effect])
def test_an_option_that_a_job_type_has_not_got_is_named_with_the_nearest(decorate: Any) -> None:
    with pytest.raises(TypeError, match="a job type has no option 'prioritty'; did you mean 'priority'?"):
        decorate(App("shop"), prioritty=1)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"lease": 0.5}, "lease 0.5 s is out of range"),
        ({"lease": 1e9}, "out of range; use 1 s to a day"),
        ({"submit_timeout": 0}, "submit_timeout 0 s is out of range"),
        ({"submit_timeout": 1e12}, "out of range; use more than 0 s"),
        ({"keep": -1}, "keep -1 s is less than nothing"),
        ({"max_lost": 0}, "max_lost 0 is out of range"),
        ({"queue": "mail.buried"}, "is not free"),
    ],
)
def test_a_wrong_setting_of_an_app_is_refused(said: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        App("shop", **said)


def test_two_job_types_of_one_name_are_refused() -> None:
    app = App("shop")
    app.job(draw)
    with pytest.raises(ValueError, match=r"defined twice; give one of them a name="):
        app.job(draw)


def test_a_singleton_type_without_a_queue_has_one_of_its_own() -> None:
    app = App("shop")
    kind = app.job(name="shop.draw", singleton=True)(draw)
    assert (kind.settings.queue, app.singletons) == ("shop.draw", {"shop.draw"})


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True)])
def test_types_of_one_queue_that_differ_about_its_being_a_singleton_are_refused(first: bool, second: bool) -> None:
    app = App("shop")
    app.job(name="one", queue="mail", singleton=first)(draw)
    with pytest.raises(ConfigError, match="job type 'two' says .* of queue 'mail', where 'one' says"):
        app.job(name="two", queue="mail", singleton=second)(draw)
    assert list(app.jobs) == ["one"]
    app.job(name="two", queue="mail", singleton=first)(draw)


def test_the_default_queue_can_not_be_a_singleton() -> None:
    with pytest.raises(ConfigError, match="can't make a singleton queue of 'shop', the app's default"):
        App("shop", queue="shop").effect(queue="shop", singleton=True)(draw)


def test_a_job_of_a_singleton_type_goes_to_no_ordinary_queue() -> None:
    app = App("shop", "memory://singletons")
    sole = app.job(name="sole", singleton=True)(draw)
    other = app.job(name="other", queue="beside", singleton=True)(draw)
    plain = app.job(name="plain")(draw)
    with pytest.raises(ConfigError, match="a job of 'sole', a singleton, can't go to queue 'default'"):
        sole.options(queue="default").submit()
    assert app.envelope(sole.options(queue="beside").job()).queue == "beside"
    assert app.envelope(plain.options(queue="sole").job()).queue == "sole"
    assert app.envelope(other.job()).queue == "beside"


def test_a_handle_is_made_anew_of_the_id_alone() -> None:
    app = App("shop", "memory://handle", queue="shop")
    there = app.job(draw)
    handle = there.submit()
    again = there.handle(handle.id)
    assert (again, again.queue) == (handle, "shop")
    assert again.state() is State.READY
    assert again.revoke(reason="not wanted")
    with pytest.raises(JobRevoked, match="not wanted"):
        there.handle(handle.id).result(10)
    elsewhere = there.options(queue="other").submit()
    assert there.options(queue="other").handle(elsewhere.id).state() is State.READY
    app.close()
