"""Alerts: one for each new kind of failure, then digests, none lost and none twice (promise C13, made of its parts)."""

from __future__ import annotations

import os
import random
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from msgspec.structs import replace

from kq.app import App
from kq.broker import BURIED, Publisher
from kq.conformance.between import Between
from kq.conformance.contract.crew import Crew
from kq.conformance.contract.figures import Figures, keeps
from kq.conformance.contract.jobs import NAME, QUEUE, Jobs
from kq.conformance.contract.mailserver import MailServer
from kq.conformance.contract.waiting import eventually
from kq.conformance.contract.world import ContractWorld, buried, requires
from kq.control import Control
from kq.control.bell import Bell
from kq.handles.trouble import Trouble, queue_of, tell
from kq.state.store import Gathered, Store, StoreUnreachable, Write
from kq.values.job import State

#: Failures of the storm, of three kinds; `make alerts` has 100 000.
FAILURES = int(os.environ.get("KQ_FAILURES") or 600)
EVERY = max(2.0, FAILURES / 5000)  # seconds between digests
OPS = "ops@example.org"


class Alerted(ContractWorld):
    """A world in which somebody reads mail."""

    @pytest.fixture
    def post(self) -> Iterator[MailServer]:
        """Where alerts go."""
        with MailServer() as server:
            yield server

    @pytest.fixture
    def settings(self, post: MailServer) -> dict[str, str]:
        return {
            NAME: f"app{uuid.uuid4().hex[:8]}",  # its alerts have a queue of their own
            "KQ_MAIL": post.url,
            "KQ_ALERTS_MAIL": OPS,
            "KQ_ALERTS_AT_MOST_EVERY": str(EVERY),
            "KQ_ALERTS_MOST_AN_HOUR": "30",
        }

    @pytest.fixture(autouse=True)
    def nobody_was_told(self, app: App) -> Iterator[None]:
        """The state store may be shared with other tests."""
        for family in ("trouble:", "troubles:", "alerts:"):
            app.store.write([Write(key, None) for key, _ in app.store.scan(family)])
        yield
        with suppress(Exception), app.broker.connection() as connection, connection.channel() as channel:
            for place in ("", BURIED):
                channel.queue_delete(queue_of(app.name) + place)


class AlertSuite(Alerted):
    """A human is told of what was buried."""

    @keeps("C13")
    def test_a_storm_of_failures_is_one_alert_for_each_kind_and_digests(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, post: MailServer, measured: Figures
    ) -> None:
        crew.worker(concurrency=2)
        kinds = [["bury"], ["bad"], ["raise ValueError"]]
        for start in range(0, FAILURES, 1000):
            batch = range(start, min(FAILURES, start + 1000))
            app.submit_many(jobs.perform_plain.job(kinds[number % 3]) for number in batch)
        within = 30 + FAILURES / 200
        eventually(lambda: told(post) >= FAILURES, f"{FAILURES} are told of", within)
        assert told(post) == FAILURES
        first = [subject for subject in post.subjects() if "failure" not in subject]
        assert Counter(first) == Counter(
            f"[{app.name}] perform_plain: {kind}" for kind in ("BadJob", "Bury", "ValueError")
        )
        digests = len(post.accepted) - 3
        measured(f"{FAILURES} failures of 3 kinds: 3 alerts and {digests} digests, at most one in {EVERY:g} s")

    @keeps("C13")
    def test_an_alert_tells_what_failed_where_and_what_to_type_and_no_secret(
        self, app: App, jobs: Jobs, crew: Crew, post: MailServer
    ) -> None:
        crew.worker()
        job = jobs.login.submit("ann", password="hunter2")
        eventually(lambda: post.accepted, "it is told", 20)
        (mail,) = post.accepted
        text = mail.message.get_content()
        assert (mail.recipient, mail.message["Subject"]) == (OPS, f"[{app.name}] login: ValueError")
        assert 'login("ann", password="***")' in text
        assert "no such user" in text
        assert "in login" in text  # the traceback
        for command in ("jobs show", "jobs edit", "jobs rm"):
            assert f"kq {command} {job.id}" in text
        assert "kq jobs kick --type login --error ValueError --place jobs.py:login --first 1" in text
        assert "hunter2" not in mail.data.decode()

    @keeps("C13")
    def test_a_doubt_is_told_with_its_two_answers(self, jobs: Jobs, crew: Crew, post: MailServer) -> None:
        crew.worker()
        job = jobs.deed.submit(os.urandom(8).hex(), "signal 9")
        eventually(lambda: post.accepted, "it is told", 20)
        text = post.accepted[0].message.get_content()
        assert f"kq jobs kick {job.id} --done" in text
        assert f"kq jobs kick {job.id} --repeat" in text

    @keeps("C13")
    def test_people_are_told_that_a_failure_has_ended_and_that_it_came_back(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, post: MailServer
    ) -> None:
        crew.worker()
        job = jobs.perform_plain.submit(["bury"])
        eventually(lambda: post.accepted, "it is told", 20)
        buried(control, job.queue, job)
        control.edit(job.id, args=[["return"]])
        control.kick(job.queue, ids=[job.id])
        job.result(20)
        eventually(lambda: len(post.accepted) == 2, "its end is told", 20)
        jobs.perform_plain.submit(["bury"])
        eventually(lambda: len(post.accepted) == 3, "that it is back is told", 20)
        kind = "perform_plain: Bury"
        assert post.subjects() == [
            f"[{app.name}] {kind}",
            f"[{app.name}] ended: {kind}",
            f"[{app.name}] {kind} came back",
        ]

    @keeps("C13")
    def test_nobody_is_told_twice_and_nothing_is_lost_wherever_control_ends(
        self, app: App, crew: Crew, post: MailServer
    ) -> None:
        crew.worker("--no-control") if app.broker.traits.shared else crew.worker()
        for ending in range(8):  # so many words it has with the store and the broker, and then it dies
            about = f"case {ending}"
            tell(app.store, Trouble("shop", "it rains", about, error=about, at=app.store.now()))
            mortal = Mortal(app, ending)
            with suppress(StoreUnreachable):
                Bell(mortal).ring()
        Bell(app).ring()
        eventually(lambda: len(post.accepted) == 8, "all are told", 20)
        texts = Counter(mail.message.get_content().split("\n")[0].strip() for mail in post.accepted)
        assert texts == Counter(f"case {ending}" for ending in range(8))

    @keeps("C13")
    def test_controls_that_are_killed_again_and_again_lose_no_alert_and_tell_none_twice(
        self, app: App, jobs: Jobs, crew: Crew, post: MailServer, measured: Figures
    ) -> None:
        requires(app, "shared")
        crew.program("--no-control", concurrency=2)
        kills, kinds = 3, (["bury"], ["bad"], ["raise ValueError"])
        chance = random.Random()
        for _ in range(kills):
            app.submit_many(jobs.perform_plain.job(kinds[each % 3]) for each in range(30))
            self._kill_one(crew, post, chance.uniform(0, 0.05))
        crew.control()
        eventually(lambda: told(post) >= 30 * kills, "all is told", 30)
        assert told(post) == 30 * kills
        texts = Counter(mail.message.get_content() for mail in post.accepted)
        assert max(texts.values()) == 1
        measured(f"{kills} kills of control, {30 * kills} failures: {len(post.accepted)} alerts, 0 lost, 0 twice")

    @staticmethod
    def _kill_one(crew: Crew, post: MailServer, after: float) -> None:
        """Kill a control soon after it has begun to act."""
        control, before = crew.control(), len(post.accepted)
        eventually(lambda: "has the seat" in control.said() or len(post.accepted) > before, "it acts", 20)
        time.sleep(after)
        control.kill()

    @keeps("C13")
    def test_an_alert_waits_for_a_mail_server_that_is_away_and_tells_nothing_about_itself(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, post: MailServer
    ) -> None:
        post.replies["MAIL"] = "451 later"
        crew.worker()
        jobs.perform_plain.submit(["bury"])
        eventually(lambda: control.jobs(queue_of(app.name), State.RETRYING), "it is tried again later", 20)
        post.replies.clear()
        eventually(lambda: post.accepted, "it is told", 30)
        assert [mail.message["Subject"] for mail in post.accepted] == [f"[{app.name}] perform_plain: Bury"]


class RuleSuite(Alerted):
    """A human is told of what is so for a while, as he has named it."""

    @pytest.fixture
    def settings(self, post: MailServer) -> dict[str, str]:
        name = f"rules-{uuid.uuid4().hex[:8]}"  # other tests have queues at the same broker
        return {
            NAME: name,
            QUEUE: name,
            "KQ_MAIL": post.url,
            "KQ_ALERTS_MAIL": OPS,
            "KQ_ALERTS_AFTER": "0.2",
            "KQ_ALERTS_RULES": f"{name}:workers<1,control<1",
        }

    def ring(self, app: App, control: Control) -> None:
        """What control does every ten seconds."""
        Bell(app).ring(control.snapshot())

    def mails(self, app: App, control: Control, post: MailServer, number: int) -> list[str]:
        """The subjects of so many mails, as soon as they have come; nothing more comes soon."""

        def come() -> bool:
            self.ring(app, control)
            return len(post.accepted) >= number

        eventually(come, f"{number} are told", 20)
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            self.ring(app, control)
        eventually(lambda: not control.jobs(queue_of(app.name)), "all that was to be told is told", 20)
        return post.subjects()

    def test_a_rule_is_told_of_once_while_it_is_so_and_once_when_it_is_over(
        self, app: App, control: Control, jobs: Jobs, crew: Crew, post: MailServer, queue: str
    ) -> None:
        job = jobs.note.submit("x")
        crew.worker(queues=f"{queue}-far")  # takes alerts, and nothing of the queue
        rule = f"{queue}:workers<1"
        so = f"[{app.name}] {rule}: {queue}"
        assert self.mails(app, control, post, 1) == [so]
        text = post.accepted[0].message.get_content()
        assert "1 ready, 0 running, 0 buried, 0 workers" in text
        assert f"kq queues why {queue}" in text
        crew.worker()
        job.result(20)
        assert self.mails(app, control, post, 2) == [so, f"[{app.name}] over: {rule}"]
        assert f"{rule} is over: it was so for" in post.accepted[1].message.get_content()

    def test_control_that_was_gone_is_told_of_by_who_comes_next(
        self, app: App, control: Control, crew: Crew, post: MailServer
    ) -> None:
        crew.worker()
        self.ring(app, control)
        shot = control.snapshot()
        Bell(app).ring(replace(shot, at=shot.at + 1000.0))
        said = re.compile(rf"\[{app.name}\] control was gone for 16m\d+s")
        eventually(lambda: any(map(said.fullmatch, post.subjects())), "it is told", 20)


def told(post: MailServer) -> int:
    """Of how many failures people were told."""
    return sum(number_in(mail.message.get_content()) for mail in post.accepted)


def number_in(text: str) -> int:
    """Of how many failures an alert tells."""
    if "A job was buried" in text:
        return 1
    if found := re.search(r"([\d,]+) jobs were buried", text):
        return int(found[1].replace(",", ""))
    return sum(int(each.replace(",", "")) for each in re.findall(r"^([\d,]+) failures? \(", text, re.MULTILINE))


class Mortal(App):
    """An app whose process dies after so many words with the state store and the broker."""

    def __init__(self, app: App, words: int) -> None:
        super().__init__(app.name)
        self._left = words
        self.connect(_Publisher(app, self._say), _Store(app.store, self._say))

    def _say(self) -> None:
        if not self._left:
            raise StoreUnreachable("killed here")
        self._left -= 1


class _Publisher(Publisher):
    def __init__(self, app: App, say: Callable[[], None]) -> None:
        super().__init__(app.broker)
        self._app, self._say = app, say

    def publish(self, *what: Any) -> bool:
        self._say()
        return self._app.publisher.publish(*what)

    def close(self) -> None:
        """It is the other app's."""


class _Store(Between):
    def __init__(self, store: Store, say: Callable[[], None]) -> None:
        super().__init__(store)
        self._say = say

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        self._say()
        return super().get(keys)

    def write(self, writes: Sequence[Write]) -> list[bool]:
        self._say()
        return super().write(writes)

    def gather(self, prefixes: Sequence[str], limit: int = 1000) -> Gathered:
        self._say()
        return super().gather(prefixes, limit)

    def close(self) -> None:
        """It is the other app's."""
