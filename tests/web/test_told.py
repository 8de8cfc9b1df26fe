"""What a job says is told to many: by the page, its API, the status, the monitor, metrics, events, logs and alerts. A
secret in it, in each kind of text, is told by none of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from html import unescape
from pathlib import Path
from urllib.parse import quote

import pytest

from kq.app import App
from kq.cli.monitor.book import read_page
from kq.cli.monitor.scene import Page
from kq.conformance.contract.waiting import eventually
from kq.control import Control
from kq.handles import trouble
from kq.values.event import encode
from kq.web.looks import LOOKS
from kq.web.pages import PAGES
from kq.web.site import Site
from tests.cli.conftest import Place, worker
from tests.web.conftest import Browser, anybody

CANARY = "hunter2"
JOBS = """
import logging, os, time
import kq
import kq.logging

app = kq.App("shop")
logging.getLogger().addHandler(kq.logging.Handler(app))


@app.job(retry_policy=kq.Fixed(delay=0.01, retries=1))
def fail(user: str, password: str) -> None:
    logging.getLogger("shop").warning("signed in with password=%s-logged", password)
    raise ConnectionError(f"no answer from redis://:{password}-raised@host/0")  # token: "hunter2-source"


@app.job
def cut(at: int, after: int, password: str) -> None:
    address = f"redis://:{password * 60}@host/0"
    logging.getLogger("shop").warning("%s %s%s", "-" * at, address, "-" * after)
    raise ValueError(f"{'-' * at} {address} {'-' * after}")


@app.job
def run(password: str) -> None:
    job = kq.current_job()
    job.emit({"password": password, "said": f"token={password}-emitted"})
    while not os.path.exists("gate"):
        logging.getLogger("shop").warning("goes on with password=%s-logged", password)
        job.progress(1, 2, f"{'-' * 120} password={password}-progress")
        time.sleep(0.05)


@app.job
def give(password: str) -> object:
    return {"secret": password, "said": f"token={password}-returned"}


@app.effect(on_doubt="bury")
def token(order: str) -> str:
    raise OSError("as asked")


@app.effect(key=lambda password: "mail", on_doubt="bury")
def deed(password: str) -> str:
    raise OSError(f"auth: {password}-doubt")


@app.effect(key=lambda password: "done")
def done(password: str) -> object:
    return {"said": f"token={password}-outcome"}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.write("jobs.py", JOBS)
    made.write("kq.yaml", "url: sqlite:///kq.db\napp: jobs:app\nevents: {keep: 1h}\n")
    return made


@pytest.fixture
def control(shop: Place) -> Iterator[Control]:
    with Control(App("shop", f"sqlite:///{shop.folder}/kq.db")) as control:
        yield control
        control.app.close()


#: Characters before and after an address whose password lies where a text is cut: at its 300th character, its 400th,
#: its 500th, its thousandth or the thousandth before its end; the eight thousandth of a traceback, from either side;
#: and the 4,096th before the end of a log's line.
CUTS = [(150, 0), (450, 0), (900, 2000), (2000, 900), (7500, 9000), (9000, 7700), (2000, 3900)]


class Ears:
    """All that is told to who listens."""

    def __init__(self, control: Control) -> None:
        self._control, self._over, self.heard = control, threading.Event(), list[bytes]()

    def listen(self, stack: ExitStack, run: str) -> None:
        """Until stack ends. run: a job that is followed."""
        for hear in (
            lambda control: control.events(over=self._over),
            lambda control: control.events(what="logs", over=self._over),
            lambda control: control.follow(run, over=self._over),
        ):
            thread = threading.Thread(target=self._hear, args=(hear,))
            thread.start()
            stack.callback(thread.join)
        stack.callback(self._over.set)

    def _hear(self, hear: Callable[[Control], Iterator[object]]) -> None:
        with self._control.apart() as control:
            self.heard += (encode([event]) for event in hear(control))

    def has(self, *words: str) -> bool:
        return all(any(word.encode() in line for line in self.heard) for word in words)


def test_a_secret_in_what_a_job_says_is_told_to_nobody(
    shop: Place, control: Control, browse: Callable[..., Browser]
) -> None:
    ears, browser = Ears(control), browse(Site(control, authorize=anybody, hosts=()))
    with worker(shop, "--pool", "thread", "-c", "4"), ExitStack() as stack:
        ids = {"run": control.app.submit("jobs.run", password=CANARY).id}
        ears.listen(stack, ids["run"])
        eventually(lambda: ears.has('"progress"', '"log"'), "somebody listens")
        ids |= {name: control.app.submit(f"jobs.{name}", password=CANARY).id for name in ("give", "deed", "done")}
        ids["fail"] = control.app.submit("jobs.fail", "ann", password=CANARY).id
        for number, (at, after) in enumerate(CUTS):
            ids[f"cut {number}"] = control.app.submit("jobs.cut", at, after, password=CANARY).id
        eventually(lambda: len(control.buried()) == 2 + len(CUTS), "those that fail lie buried")
        eventually(lambda: ears.has('"failed"', '"buried"', ids["fail"]), "it was told")
        eventually(lambda: "1/2" in browser.get("/workers").text, "it says how far it is")
        eventually(lambda: any(row.buried for row in control.snapshot().failures), "control has counted them", 60)
        told = dict(seen(shop, control, browser, ids))
        shop.write("gate", "")
    told["events"] = b"".join(ears.heard).decode()
    told["troubles"] = str(control.app.store.get([row[0] for row in control.app.store.scan(trouble.CASES, 10)]))
    for where, text in told.items():
        assert CANARY not in text, (where, text[max(0, text.index(CANARY) - 200) :][:300])
    for where in (f"/jobs/{ids['run']}", f"the monitor's page {Page('job', ids['run'])}"):
        assert "emitted" in told[where], told[where]
    for words in ("***", "no answer from", "goes on with"):
        assert any(words in text for text in told.values()), words


def seen(shop: Place, control: Control, browser: Browser, ids: dict[str, str]) -> Iterator[tuple[str, str]]:
    """What is to be seen at each place."""
    paths = [path.replace("{name}", "default") for path in PAGES if not path.startswith("/jobs/")]
    paths += [f"/jobs/{id}{more}" for id in ids.values() for more in ("", "?x=1")]
    paths += [f"/api/v1{look.path}" for look in LOOKS if "{name}" not in look.path]
    paths += [f"/api/v1/jobs/{id}{more}" for id in ids.values() for more in ("", "/why")]
    paths += [f"/jobs/{ids['run']}/stack", f"/api/v1/jobs/{ids['run']}/stack", "/api/v1/metrics"]
    paths += [f"/api/v1/jobs/{ids['run']}/{what}?seconds=1" for what in ("events", "stream", "ended")]
    paths += [f"/api/v1/{what}?seconds=1" for what in ("events", "logs")]
    paths += [f"/api/v1/effects/{quote(key, safe='')}" for key in ("jobs.deed:mail", "jobs.done:done")]
    for path in paths:
        answer = browser.get(path.removesuffix("?x=1"))
        assert answer.status_code == 200, (path, answer.text)
        yield path, answer.text
    for verb in (("status",), ("status", "--json"), ("metrics",), ("monitor", "--once"), ("events", "--since", "1h")):
        said = shop.here(*verb)
        assert said.code == 0, said.err
        yield " ".join(verb), said.out
    pages = [Page("queue", "default"), *(Page("job", id) for id in ids.values())]
    for page in pages:
        yield f"the monitor's page {page}", str(read_page(control, page))


def test_the_key_of_an_effect_can_be_read_where_it_is_to_be_decided_about(
    shop: Place, control: Control, browse: Callable[..., Browser]
) -> None:
    browser = browse(Site(control, authorize=anybody, hosts=()))
    with worker(shop):
        id = control.app.submit("jobs.token", "4711").id
        eventually(lambda: control.buried(), "it lies buried")
    (effect,) = control.effects(stage="doubt")
    assert effect.key.startswith("jobs.token:")
    said = f"nobody knows whether the effect '{effect.key}' happened"
    assert said in browser.get(f"/api/v1/jobs/{id}").json()["error"]
    assert said in unescape(browser.get(f"/jobs/{id}").text)
    assert said in str(read_page(control, Page("job", id)))
