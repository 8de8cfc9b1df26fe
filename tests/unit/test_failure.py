"""The classes of errors: the public list, the names by which it is asked, and failures as people read them."""

from __future__ import annotations

import errno
import importlib
import sqlite3
from pathlib import Path
from traceback import format_exception

import pytest

import kq
from kq.effects import once
from kq.errors import BadJob, ConfigError
from kq.values.failure import FAILURES, Failure, classified, group_of, laid_out, names_of
from kq.values.outcome import Rules, class_of
from kq.values.policy import error_name
from kq.values.redaction import both_ends


class DiskFull(OSError):
    """A user's own."""


@pytest.mark.parametrize("name", FAILURES)
def test_the_list_names_what_exists(name: str) -> None:
    module, _, last = name.rpartition(".")
    if last.isupper():
        assert hasattr(sqlite3 if last.startswith("SQLITE_") else errno, last)
        name = module
        module, _, last = name.rpartition(".")
    found = getattr(importlib.import_module(module or "builtins"), last)
    assert error_name(found) == name


def test_a_code_stands_before_the_class_that_it_divides() -> None:
    assert names_of(OSError(errno.ENOSPC, "full"))[:2] == ("OSError.ENOSPC", "OSError")
    assert names_of(ConnectionResetError(errno.ECONNRESET, "reset"))[:4] == (
        "ConnectionResetError",
        "ConnectionError",
        "OSError.ECONNRESET",
        "OSError",
    )
    assert names_of(DiskFull(errno.ENOSPC, "full"))[:2] == (f"{__name__}.DiskFull", "OSError.ENOSPC")
    assert names_of(OSError("no code"))[0] == "OSError"
    assert names_of(BadJob("x"))[:2] == ("kq.errors.BadJob", "kq.errors.Steering")


def test_errors_of_a_class_that_a_function_made_are_alike() -> None:
    class Odd(Exception):
        """One whose name has brackets."""

    said = [str(Failure(names_of(Odd()), f"row {row} has no date")) for row in (7, 8)]
    assert {group_of(error, "") for error in said} == {(error_name(Odd), "")}
    assert group_of("buried by ann: broken", "")[0] == "buried by ann: broken"


def frames(*places: str) -> str:
    lines = (
        f'  File "{file}", line 7, in {function}' for file, _, function in (place.partition(":") for place in places)
    )
    return "\n".join(["Traceback (most recent call last):", *lines, "RuntimeError: the line broke"])


LIB = "/venv/lib/python3.11"
#: Where the modules are that stand between a job and its side effects.
KQ = str(Path(once.__file__).parent)
CAUSE = "\n\nThe above exception was the direct cause of the following exception:\n\n"


@pytest.mark.parametrize(
    ("traceback", "place"),
    [
        (frames("/srv/shop.py:send", f"{LIB}/smtplib.py:connect"), "smtplib.py:connect"),
        (frames(f"{KQ}/effect.py:run", "/srv/shop.py:send"), "shop.py:send"),
        (
            frames(f"{KQ}/effect.py:run", "/srv/shop.py:send")
            + CAUSE
            + frames(f"{KQ}/effect.py:run", f"{KQ}/once.py:__exit__", f"{KQ}/once.py:_leave"),
            "shop.py:send",
        ),
        (frames("/srv/shop.py:send", f"{KQ}/once.py:__enter__", f"{KQ}/once.py:_begin"), "shop.py:send"),
        (
            frames("/srv/shop.py:send", f"{KQ}/once.py:__aenter__", f"{LIB}/threading.py:run", f"{KQ}/once.py:_begin"),
            "shop.py:send",
        ),
        (frames(f"{KQ}/effect.py:run", f"{KQ}/once.py:__enter__", f"{KQ}/once.py:_begin"), ""),
        (frames("/srv/kq/jobs.py:send"), "jobs.py:send"),
        ("", ""),
    ],
)
def test_a_failure_is_where_the_code_of_the_job_failed_and_not_where_kq_raised_a_doubt(
    traceback: str, place: str
) -> None:
    assert group_of("InDoubt: nobody knows", traceback) == ("InDoubt", place)


def test_sqlite_tells_a_full_disk_from_a_lock(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "small.db") as small:
        small.execute("PRAGMA page_size = 512")
        small.execute("PRAGMA max_page_count = 3")
        small.execute("CREATE TABLE t (x)")
        with pytest.raises(sqlite3.OperationalError) as caught:
            small.execute("INSERT INTO t VALUES (?)", ("x" * 10_000,))
    small.close()
    assert names_of(caught.value)[:2] == ("sqlite3.Error.SQLITE_FULL", "sqlite3.OperationalError")
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite3.connect(tmp_path / "no" / "such" / "folder.db")
    assert "sqlite3.Error.SQLITE_CANTOPEN" in names_of(caught.value)
    assert class_of(names_of(caught.value), Rules()) == "passing"


def test_classes_of_an_app_and_of_a_type_are_laid_over_each_other() -> None:
    app = kq.App(
        "shop", "memory://x", failures={LookupError: "passing", "shop.Full": "storage"}, max_lost=7, max_infra=2
    )

    @app.job(failures={KeyError: "final", "shop.Full": "network"}, max_lost=1)
    def one() -> None: ...

    @app.job
    def other() -> None: ...

    assert one.rules.failures == {"LookupError": "passing", "shop.Full": "network", "KeyError": "final"}
    assert (one.rules.max_lost, one.rules.max_infra) == (1, 2)
    assert other.rules.failures == {"LookupError": "passing", "shop.Full": "storage"}
    assert (other.rules.max_lost, other.rules.max_infra) == (7, 2)


def test_a_class_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="KeyError is of class 'later'; use one of passing, final, storage, network"):
        classified({KeyError: "later"})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (Failure(("KeyError", "LookupError"), "'x'"), "KeyError: 'x'"),
        (Failure(("KeyError",), ""), "KeyError"),
        (Failure(("kq.errors.BadJob",), "no date"), "BadJob: no date"),
        (Failure((), "odd"), "Exception: odd"),
    ],
)
def test_a_failure_is_one_line(failure: Failure, text: str) -> None:
    assert str(failure) == text


SECRET = "password=hunter2 and token=" + "A1b2" * 20 + " "


@pytest.mark.parametrize("text", [SECRET * 4000, "x" * 300_000 + SECRET, SECRET + "x\n" * 200_000, "short"])
@pytest.mark.parametrize("longest", [100, 2000])
def test_of_a_huge_error_no_more_is_laid_out_than_is_shown(text: str, longest: int) -> None:
    error = KeyError(text)
    error.__cause__ = ExceptionGroup(text, [ValueError(text)])
    error.add_note(text)
    laid = "".join(laid_out(error, None, longest).format())
    assert both_ends(laid, longest) == both_ends("".join(format_exception(error)), longest)
    assert len(laid) < 200_000
