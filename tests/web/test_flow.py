"""What the page is for, from end to end, on each broker: find what is wrong, put it right, see that it runs."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from kq.conformance.contract.crew import Crew
from kq.conformance.contract.diary import Diary
from kq.conformance.contract.jobs import Jobs
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, Gate, buried
from kq.control import Control
from kq.values.job import State
from kq.web.site import Site
from tests.brokers import OnMemory, OnRabbit, OnRedis, OnSqlite
from tests.web.conftest import Browser, anybody, words


class Flow(ContractWorld):
    @pytest.fixture
    def browser(self, control: Control, browse: Callable[..., Browser]) -> Browser:
        return browse(Site(control, authorize=anybody, hosts=()))

    def test_what_failed_is_mended_and_put_back_and_what_is_in_doubt_is_answered(
        self, browser: Browser, control: Control, jobs: Jobs, crew: Crew, queue: str, diary: Diary
    ) -> None:
        job = jobs.perform.submit(["bad"])
        assert f"no live worker takes queue {queue}; 1 job is ready" in words(browser.get("/"))
        crew.worker()
        buried(control, queue, job)
        page = browser.get("/buried").text
        assert f"/jobs/{job.id}" in page
        assert "BadJob" in page
        said = browser.told(f"/jobs/{job.id}/edit", args='[["return"]]', reason="mended")
        assert "edited args.0" in said
        assert f"kicked {job.id}" in browser.told(f"/jobs/{job.id}/kick")
        job.result(20)
        done = words(browser.get(f"/jobs/{job.id}"))
        assert "completed" in done
        assert re.search("attempt 1: raised .* edited by .* mended .* kicked by", done), done
        assert [start.word for start in diary.starts(job.id)] == ["bad", "return"]
        self.answer_a_doubt(browser, control, jobs, queue)

    def test_a_running_job_says_where_it_is(
        self, browser: Browser, jobs: Jobs, crew: Crew, diary: Diary, gate: Gate
    ) -> None:
        crew.worker()
        job = diary.begun(jobs.hold.submit(gate.path))
        path = f"/jobs/{job.id}/stack"
        eventually(lambda: path in browser.get(f"/jobs/{job.id}").text, "its page leads there")
        said = words(browser.get(path))
        assert re.search("has run for .* innermost call last.*contract/jobs.py", said), said
        assert browser.api(path, token="").json()["frames"][0]["name"] == "hold"
        gate.open()
        job.result(20)
        assert browser.get(path).status_code == 404
        assert "it does not run" in browser.api(path, token="").json()["error"]["message"]

    def test_a_worker_is_set_to_another_size(
        self, browser: Browser, control: Control, jobs: Jobs, crew: Crew, queue: str
    ) -> None:
        crew.worker()
        name = eventually(lambda: control.ping(), "a worker lives")[0]
        path = f"/workers/{quote(name)}/set"
        said = browser.told(path, concurrency="2", queues=f"+{queue}-far:1", back="/workers")
        assert f"set {name}: 2 jobs at a time, of {queue}, {queue}-far" in said
        seal = browser.api("/me", token="").json()["seal"]
        answer = browser.client.post(
            f"/api/v1{path}", json={"queues": f"-{queue}-far"}, headers={"X-KQ-Seal": seal}
        ).json()
        assert (answer["heard"], answer["slots"], answer["queues"]) == (True, 2, {queue: 2})

    def answer_a_doubt(self, browser: Browser, control: Control, jobs: Jobs, queue: str) -> None:
        deed = jobs.deed.submit("raise OSError", "k")
        buried(control, queue, deed)
        (entry,) = browser.api("/effects?stage=doubt", token="").json()
        assert entry["job"] == deed.id
        doubt = "of 1 side effect nobody knows whether it happened"
        eventually(
            lambda: doubt in words(browser.get("/")), "the overview says it"
        )  # a snapshot is a second old at most
        assert "Did it happen?" in words(browser.get("/effects"))
        browser.told(f"/jobs/{deed.id}/kick", answer="done", outcome='"250 ok"', back="/effects")
        deed.result(20)
        assert browser.api("/effects?stage=doubt", token="").json() == []
        assert "said that it happened" in words(browser.get("/audit"))

    def test_a_queue_is_paused_and_its_worker_retired(
        self, browser: Browser, control: Control, jobs: Jobs, crew: Crew, queue: str
    ) -> None:
        crew.worker()
        jobs.note.submit().result(20)
        (worker,) = control.workers()
        assert "1 of 1 workers have heard" in browser.told(f"/queues/{queue}/pause", reason="later")
        waiting = jobs.note.submit()
        assert "later" in words(browser.get(f"/queues/{queue}"))
        assert "paused by" in browser.api(f"/jobs/{waiting.id}/why", token="").json()["why"]
        browser.told(f"/queues/{queue}/resume")
        waiting.result(20)
        assert worker.name in words(browser.get("/workers"))
        assert f"retired {worker.name}" in browser.told(f"/workers/{worker.name}/retire")
        eventually(lambda: not control.workers(), "the worker has ended")

    def test_what_runs_is_found_and_revoked_and_what_lies_buried_is_completed_by_hand(
        self, browser: Browser, control: Control, jobs: Jobs, crew: Crew, queue: str, tmp_path: Path
    ) -> None:
        crew.worker()
        running = jobs.hold.submit(str(tmp_path / "never"))
        found = f"/jobs?state=running&queue={queue}&type=hold&search={running.id[:20]}"
        eventually(lambda: f"/jobs/{running.id}" in browser.get(found).text, "it is found among those that run")
        assert "Where it is" in words(browser.get(f"/jobs/{running.id}"))
        assert f"revoked {running.id}" in browser.told(f"/jobs/{running.id}/revoke", interrupt="true", reason="enough")
        eventually(lambda: running.state() is State.REVOKED, "it has ended")
        assert "revoked" in words(browser.get(f"/jobs/{running.id}"))
        bad = jobs.perform.submit(["bad"])
        buried(control, queue, bad)
        assert f"completed {bad.id}" in browser.told(f"/jobs/{bad.id}/complete", result='{"by": "hand"}')
        result: object = bad.result(20)
        assert result == {"by": "hand"}
        assert '"by": "hand"' in words(browser.get(f"/jobs/{bad.id}"))
        later = jobs.note.options(delay=600).submit("later")
        assert "edited delay" in browser.told(f"/jobs/{later.id}/edit", delay="0", unchecked="true")
        assert later.result(20) == "later"

    def test_an_effect_is_lifted_and_happens_again(
        self, browser: Browser, jobs: Jobs, crew: Crew, diary: Diary
    ) -> None:
        crew.worker()
        jobs.deed.submit("letter").result(20)
        (entry,) = browser.api("/effects?stage=done&search=letter", token="").json()
        assert "letter" in words(browser.get("/effects"))
        key = quote(entry["key"], safe="")
        assert browser.api(f"/effects/{key}", token="").json()["job"] == entry["job"]
        assert f"lifted {entry['key']}" in browser.told(f"/effects/{key}/lift", reason="it went astray")
        assert browser.api("/effects?stage=done&search=letter", token="").json() == []
        again = jobs.deed.submit("letter")
        again.result(20)
        assert [each.word for each in diary.entries("acted")] == ["letter", "letter"]


class TestOnMemory(OnMemory, Flow):
    pass


class TestOnSqlite(OnSqlite, Flow):
    def test_events_are_heard_by_programs(self, browser: Browser, jobs: Jobs, crew: Crew, queue: str) -> None:
        crew.worker()
        over = threading.Event()

        def feed() -> None:
            while not over.is_set():
                jobs.note.submit().result(20)

        feeder = threading.Thread(target=feed)
        feeder.start()
        try:
            answer = browser.api(f"/events?queue={queue}&seconds=1.5", token="")
        finally:
            over.set()
            feeder.join()
        heard = [json.loads(line) for line in answer.text.splitlines()]
        assert {"started", "completed"} <= {event["event"] for event in heard}
        assert {event["queue"] for event in heard} == {queue}


class TestOnRedis(OnRedis, Flow):
    pass


class TestOnRabbit(OnRabbit, Flow):
    pass
