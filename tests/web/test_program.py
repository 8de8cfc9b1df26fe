"""`kq web` as people run it: where it dares to listen, that it ends, and what its hashes are good for."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kq.credential import understood
from tests.cli.conftest import Place
from tests.web.conftest import CHEAP, PASSWORD

READY = re.compile(r"ready: (https?)://\S+:(\d+)/")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.write("kq.yaml", "url: sqlite:///kq.db\n")
    made.write("jobs.py", "import kq\napp = kq.App('shop')\n@app.job\ndef greet(name: str) -> str:\n    return name\n")
    assert made.kq("-A", "jobs", "submit", "greet", "ann").code == 0
    return made


class Page:
    """A page that is served."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""
        self.scheme, self.port = self._ready()

    def _ready(self) -> tuple[str, int]:
        assert self.process.stderr is not None
        while (found := READY.search(self.said)) is None:
            line = self.process.stderr.readline()
            assert line, self.said
            self.said += line
        self.said = ""
        return found[1], int(found[2])

    def again(self) -> None:
        """Wait until it is ready once more."""
        self.scheme, self.port = self._ready()

    def ask(
        self, method: str, path: str, body: str = "", context: ssl.SSLContext | None = None, **headers: str
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers and text of an answer."""
        if context is None:
            line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        else:
            line = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=context)
        try:
            line.request(method, path, body or None, {name.replace("_", "-"): text for name, text in headers.items()})
            answer = line.getresponse()
            return answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read().decode()
        finally:
            line.close()


@contextmanager
def serving(place: Place, *arguments: str) -> Iterator[Page]:
    with subprocess.Popen(
        place.command("web", "--listen", "127.0.0.1:0", *arguments),
        cwd=place.folder,
        env=place.environment(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Page(process)
        finally:
            process.kill()


FORM = "application/x-www-form-urlencoded"


def test_it_serves_until_it_is_told_to_end(place: Place) -> None:
    with serving(place) as page:
        status, headers, text = page.ask("GET", "/")
        assert (status, "no live worker takes queue default" in text) == (200, True)
        assert "server" not in headers
        assert page.ask("GET", "/", Host="evil.example")[0] == 403
        seal = re.search(r'name="seal" value="(\w+)"', page.ask("GET", "/submit", Cookie="kq_session=v")[2])
        assert seal is not None
        # Also where a name has all that a URL makes something of.
        name = urllib.parse.quote("%2e/../a?b#c", safe="")
        said = urllib.parse.urlencode(
            {"seal": seal[1], "type": "jobs.greet", "args": '["bo"]', "queue": "%2e/../a?b#c"}
        )
        assert page.ask("POST", "/jobs", said, Cookie="kq_session=v", Content_Type=FORM)[0] == 303
        assert page.ask("GET", f"/queues/{name}")[0] == 200
        paused = page.ask("POST", f"/queues/{name}/pause", f"seal={seal[1]}", Cookie="kq_session=v", Content_Type=FORM)
        assert (paused[0], paused[1]["location"]) == (303, f"/queues/{name}")
        page.process.send_signal(signal.SIGTERM)
        assert page.process.wait(20) == 0
    rows = json.loads(place.kq("queues", "ls", "--json").out)
    assert [row["name"] for row in rows if row["paused"]] == ["%2e/../a?b#c"]


@pytest.mark.parametrize("listen", ["0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.org:0"])
def test_it_does_not_listen_to_strangers_without_credentials(place: Place, listen: str) -> None:
    said = place.kq("web", "--listen", listen)
    assert said.code == 78
    assert "where nobody has to sign in" in said.err
    assert "kq web --hash-password" in said.err


def test_where_nobody_can_listen_is_said(place: Place) -> None:
    with serving(place) as page:
        said = place.kq("web", "--listen", f"127.0.0.1:{page.port}")
    assert (said.code, "nobody can listen at" in said.err) == (78, True)


def test_a_password_is_hashed_and_a_token_is_made_for_the_settings(place: Place) -> None:
    said = place.kq("web", "--hash-password", "--role", "edit", stdin=f"{PASSWORD}\n")
    assert PASSWORD not in said.out + said.err
    assert understood(said.out).fits(PASSWORD)
    made = place.kq("web", "--new-token", "--json").json
    assert understood(made["line"]).fits(made["token"])
    assert place.kq("web", "--hash-password", stdin="short\n").code == 65


def test_with_users_it_listens_anywhere_and_asks_who_it_is(place: Place) -> None:
    token = place.kq("web", "--new-token", "--role", "operate", "--json").json
    place.write(
        "kq.yaml",
        f"url: sqlite:///kq.db\nweb:\n  users: {{ann: edit {CHEAP}}}\n  tokens: {{robot: {token['line']}}}\n",
    )
    with serving(place, "--listen", "0.0.0.0:0") as page:
        assert page.ask("GET", "/jobs")[1]["location"] == "/login?back=%2Fjobs"
        status, _, text = page.ask("GET", "/api/v1/me", Authorization=f"Bearer {token['token']}")
        assert (status, json.loads(text)["name"], json.loads(text)["role"]) == (200, "robot", "operate")
        seal = re.search(r'name="seal" value="(\w+)"', page.ask("GET", "/login", Cookie="kq_session=v")[2])
        assert seal is not None
        said = urllib.parse.urlencode({"seal": seal[1], "name": "ann", "password": PASSWORD})
        answer = page.ask("POST", "/login", said, Cookie="kq_session=v", Content_Type=FORM)
        assert (answer[0], "kq_session=" in answer[1]["set-cookie"]) == (303, True)
    doctor = place.kq("doctor")
    assert "scrypt" not in doctor.out
    assert "ann: edit ***" in place.kq("doctor", "-v").out


def test_it_speaks_https(place: Place) -> None:
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 1 -subj /CN=localhost"
    made = subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1"], cwd=place.folder, capture_output=True, check=False
    )
    assert made.returncode == 0, made.stderr
    place.write("kq.yaml", "url: sqlite:///kq.db\nweb: {certificate: cert.pem, key: key.pem}\n")
    with serving(place) as page:
        assert page.scheme == "https"
        trusting = ssl.create_default_context(cafile=str(place.folder / "cert.pem"))
        assert "Secure" in page.ask("GET", "/", context=trusting)[1]["set-cookie"]


def test_new_code_is_taken_when_it_imports(place: Place) -> None:
    with serving(place, "-A", "jobs") as page:
        place.write("jobs.py", "1 / 0\n")
        page.process.send_signal(signal.SIGHUP)
        assert page.process.stderr is not None
        while "stays with the code that it has" not in (line := page.process.stderr.readline()):
            assert line
        assert page.ask("GET", "/livez")[0] == 200
        place.write("jobs.py", "import kq\napp = kq.App('shop', queue='fresh')\n@app.job\ndef x() -> None: ...\n")
        page.process.send_signal(signal.SIGHUP)
        page.again()
        assert "fresh" in page.ask("GET", "/queues")[2]
        os.kill(page.process.pid, signal.SIGINT)
        assert page.process.wait(20) == 0
