"""An app and its job types: what is wrong about them is told in the line that says it, before anything is submitted."""

from __future__ import annotations

from typing import Any

import pytest

from kq.app import App


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


@pytest.mark.parametrize("decorate", [App.job, App.effect])
def test_an_option_that_a_job_type_has_not_got_is_named_with_the_nearest(decorate: Any) -> None:
    with pytest.raises(TypeError, match="a job type has no option 'prioritty'; did you mean 'priority'?"):
        decorate(App("shop"), prioritty=1)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"lease": 0.5}, "lease 0.5 s is too short"),
        ({"submit_timeout": 0}, "submit_timeout 0 s is too short"),
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
