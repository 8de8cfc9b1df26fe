"""Errors: codes, one or two lines, and the way between processes."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

from kq import errors
from kq.errors import KqError


def all_errors(kind: type[KqError] = KqError) -> list[type[KqError]]:
    return [
        kind,
        *(found for below in kind.__subclasses__() if below.__module__ == "kq.errors" for found in all_errors(below)),
    ]


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [error.code for error in all_errors()]
    assert len(set(codes)) == len(codes) > 20
    assert all(re.fullmatch(r"KQ[0-6]\d\d", code) for code in codes)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.ConfigError, ValueError),
        (errors.MessageError, ValueError),
        (errors.BrokerUnreachable, ConnectionError),
        (errors.ResultTimeout, TimeoutError),
        (errors.SoftTimeout, TimeoutError),
    ],
)
def test_errors_are_caught_by_the_built_in_class_that_people_know(
    error: type[KqError], builtin: type[Exception]
) -> None:
    assert issubclass(error, builtin)


def test_an_error_is_what_is_wrong_and_what_to_do() -> None:
    assert str(errors.ConfigError("lease is '-1'", fix="Write 15s.")) == "lease is '-1'\nWrite 15s."
    assert str(errors.BrokerError("queue 'mail' is full")) == "queue 'mail' is full"


def test_a_message_error_has_its_reason() -> None:
    assert errors.MessageError("the body is no JSON").reason == "the body is no JSON"


def test_an_unreachable_broker_tells_whether_the_job_was_stored() -> None:
    assert errors.BrokerUnreachable("redis://h does not answer", stored="no").stored == "no"
    assert errors.BrokerUnreachable().stored == "unknown"


@pytest.mark.parametrize("kind", all_errors(errors.JobError))
def test_why_a_job_has_no_result_names_the_job_and_the_next_step(kind: type[errors.JobError]) -> None:
    error = kind("1f00", "ValueError: no", traceback="Traceback ...")
    assert (error.job, error.error, error.traceback) == ("1f00", "ValueError: no", "Traceback ...")
    what, fix = str(error).split("\n")
    assert what.startswith("job 1f00 ")
    assert what.endswith(": ValueError: no")
    assert "{" not in what + fix.replace("{keep: 1d}", "")


def test_a_retry_says_when_and_refuses_the_past() -> None:
    assert errors.Retry(delay=30).delay == 30
    assert errors.Retry("rate limited").delay is None
    with pytest.raises(ValueError, match="delay -1 is out of range"):
        errors.Retry(delay=-1)


@pytest.mark.parametrize(
    "error",
    [
        errors.BrokerUnreachable("gone", stored="no", fix="wait"),
        errors.JobBuried("1f00", "ValueError: no", traceback="..."),
        errors.ResultTimeout("1f00"),
        errors.Retry("later", delay=3.0),
        errors.SoftTimeout(),
    ],
)
def test_errors_travel_between_processes_whole(error: KqError) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)
