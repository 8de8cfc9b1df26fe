"""What people see of a job that another job type did, or is to do."""

from __future__ import annotations

from tests.cli.conftest import Place, worker

JOBS = """
import kq

app = kq.App("shop")


@app.job(queue="simple")
def sketch(page: str) -> str:
    return f"a sketch of {page}"


@app.job(fallback=[sketch])
def render(page: str) -> str:
    raise ValueError("no paint")
"""


def test_who_is_to_answer_and_who_answered_is_shown(shop: Place) -> None:
    id = shop.kq("submit", "jobs.render", "cat").out.strip()
    with worker(shop, "-Q", "default"):
        assert shop.kq("submit", "jobs.render", "dog", "--wait", "--timeout", "0.5s").code
    waiting = shop.kq("--json", "jobs", "show", id).json
    assert (waiting["type"], waiting["queue"], waiting["degraded_by"]) == ("jobs.sketch", "simple", 1)
    assert waiting["types"] == ["jobs.render", "jobs.sketch"]
    assert "degraded  fallback 1 of 1, instead of jobs.render" in shop.kq("jobs", "show", id).out
    why = shop.kq("jobs", "why", id).out
    assert "it is fallback 1, because jobs.render raised: ValueError: no paint" in why
    with worker(shop):
        assert (
            shop.kq("submit", "jobs.render", "cow", "--wait", "--timeout", "20s")
            .out.strip()
            .endswith("a sketch of cow")
        )
    done = shop.kq("--json", "jobs", "show", id).json
    assert (done["result"], done["type"], done["degraded_by"]) == ("a sketch of cat", "jobs.sketch", 1)
    assert [attempt["type"] for attempt in done["history"]] == ["jobs.render"]
    assert "fallback 1, instead of jobs.render" in shop.kq("jobs", "show", id).out
