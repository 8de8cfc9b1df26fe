"""`kq web` as people run it: where it dares to listen, that it ends, and what its hashes are good for."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import urllib.parse
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import kq
from kq.control import Control
from kq.credential import understood
from kq.errors import ConfigError
from kq.values.config import Web
from kq.web import program
from tests.cli.conftest import Place
from tests.web.conftest import CHEAP, PASSWORD

LINK = re.compile(r"/open\?link=\S+")
READY = re.compile(r"ready: (https?)://\S+:(\d+)/")


def furnished(folder: Path) -> Place:
    """A place with an application, and a job of it that waits."""
    made = Place(folder)
    made.write("kq.yaml", "url: sqlite:///kq.db\n")
    made.write("jobs.py", "import kq\napp = kq.App('shop')\n@app.job\ndef greet(name: str) -> str:\n    return name\n")
    app = kq.App("shop", f"sqlite:///{folder}/kq.db")
    app.submit("jobs.greet", "ann")
    app.close()
    return made


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return furnished(tmp_path)


class Page:
    """A page that is served."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""
        self.cookie = ""
        self.trusting: ssl.SSLContext | None = None
        self.scheme, self.port = self._ready()

    def _ready(self) -> tuple[str, int]:
        assert self.process.stderr is not None
        while (found := READY.search(self.said)) is None:
            line = self.process.stderr.readline()
            assert line, self.said
            self.said += line
        self.said = ""
        return found[1], int(found[2])

    def open(self, place: Place) -> None:
        """Open it by a link, as the user who runs it."""
        link = LINK.search(place.kq("web", "--link").out)
        assert link is not None
        status, headers, _ = self.ask("GET", link[0])
        assert (status, headers["location"]) == (303, "/")
        self.cookie = headers["set-cookie"].partition(";")[0]

    def again(self) -> None:
        """Wait until it is ready once more."""
        self.scheme, self.port = self._ready()

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> tuple[int, dict[str, str], str]:
        """Status, headers and text of an answer. The browser keeps its cookie, unless the headers have another."""
        headers = {**({"Cookie": self.cookie} if self.cookie else {}), **headers}
        if self.trusting is None:
            line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        else:
            line = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=self.trusting)
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
        page.open(place)
        status, headers, text = page.ask("GET", "/")
        assert (status, "no live worker takes queue default" in text) == (200, True)
        assert "server" not in headers
        assert page.ask("GET", "/", Host="evil.example")[0] == 403
        seal = re.search(r'name="seal" value="(\w+)"', page.ask("GET", "/submit", Cookie=page.cookie)[2])
        assert seal is not None
        # Also where a name has all that a URL makes something of.
        name = urllib.parse.quote("%2e/..a?b#c", safe="")
        said = urllib.parse.urlencode({"seal": seal[1], "type": "jobs.greet", "args": '["bo"]', "queue": "%2e/..a?b#c"})
        assert page.ask("POST", "/jobs", said, Cookie=page.cookie, Content_Type=FORM)[0] == 303
        assert page.ask("GET", f"/queues/{name}")[0] == 200
        paused = page.ask("POST", f"/queues/{name}/pause", f"seal={seal[1]}", Cookie=page.cookie, Content_Type=FORM)
        assert (paused[0], paused[1]["location"]) == (303, f"/queues/{name}")
        page.process.send_signal(signal.SIGTERM)
        assert page.process.wait(20) == 0
    rows = json.loads(place.kq("queues", "ls", "--json").out)
    assert [row["name"] for row in rows if row["paused"]] == ["%2e/..a?b#c"]


def test_it_does_not_listen_to_strangers_without_credentials(place: Place) -> None:
    said = place.kq("web", "--listen", "0.0.0.0:0")
    assert said.code == 78
    assert "where nobody has to sign in" in said.err
    assert "kq web --hash-password" in said.err


@pytest.mark.parametrize("listen", ["0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.org:0"])
def test_a_stranger_is_whoever_is_not_on_this_host(control: Control, listen: str) -> None:
    with pytest.raises(ConfigError, match="where nobody has to sign in"):
        program.run(control, Web(listen=listen))


def test_where_nobody_can_listen_is_said(place: Place) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as line:
        said = place.kq("web", "--listen", f"127.0.0.1:{line.getsockname()[1]}")
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
        page.trusting = ssl.create_default_context(cafile=str(place.folder / "cert.pem"))
        assert "Secure" in page.ask("GET", "/login")[1]["set-cookie"]
        page.open(place)
        assert page.ask("GET", "/")[0] == 200


def test_new_code_is_taken_when_it_imports(place: Place) -> None:
    with serving(place, "-A", "jobs") as page:
        page.open(place)
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


def raw(page: Page, *lines: str, body: bytes = b"") -> tuple[int, str]:
    """Status and all of the answer to a request that is written by hand."""
    with socket.create_connection(("127.0.0.1", page.port), timeout=20) as line:
        line.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
        said = b""
        with contextlib.suppress(ConnectionError):
            while more := line.recv(2**16):
                said += more
    return int(said.split(b" ", 2)[1]), said.decode(errors="replace")


HOST = "Host: localhost"


def test_what_no_page_of_ours_sends_is_refused(place: Place) -> None:
    with serving(place) as page:
        page.open(place)
        seal = re.search(r'name="seal" value="(\w+)"', page.ask("GET", "/submit", Cookie=page.cookie)[2])
        assert seal is not None
        ours = {"Cookie": page.cookie, "Content_Type": FORM}
        pause, right = "/queues/default/pause", f"seal={seal[1]}"
        for body, headers in (
            ("", {"Content_Type": FORM}),
            (right, {**ours, "Sec_Fetch_Site": "cross-site"}),
            ("seal=0", ours),
            (right, {**ours, "Origin": "http://evil.example"}),
            (right, {**ours, "Origin": "null"}),
            (right, {**ours, "Sec_Fetch_Site": "same-site"}),
            (right, {**ours, "Host": "evil.example"}),
        ):
            assert page.ask("POST", pause, body, **headers)[0] == 403, headers
        told = page.ask("POST", f"/api/v1{pause}", "{}", Content_Type="application/json")
        assert (told[0], json.loads(told[2])["error"]["code"]) == (403, "KQ602")
        evil = urllib.parse.urlencode({"seal": seal[1], "back": "/x\r\nSet-Cookie: a=b", "reason": "\r\nX-Evil: 1"})
        status, headers, _ = page.ask("POST", pause, evil, **ours)
        assert (status, headers["location"], "x-evil" in headers) == (303, "/queues/default", False)
        assert "a=b" not in headers["set-cookie"]
        for path in ("/static/../../../kq.yaml", "/static/%2e%2e/program.py", "/static/..%2f..%2f..%2fkq.yaml"):
            assert raw(page, f"GET {path} HTTP/1.1", HOST)[0] == 404, path
        for path in ("/static//etc/passwd", "/static/%00", "/static/kq.css%00.html", "/static/\\..\\program.py"):
            assert raw(page, f"GET {path} HTTP/1.1", HOST)[0] in (400, 404), path
        assert raw(page, "GET http://evil.example/ HTTP/1.1", "Host: evil.example")[0] == 403
        for wrong in (
            ("POST / HTTP/1.1", HOST, "Content-Length: -1"),
            ("POST / HTTP/1.1", HOST, "Content-Length: 5", "Content-Length: 6"),
            ("GET / HTTP/1.1", HOST, "Host: evil.example"),
            ("GET / HTTP/1.1", HOST, "X: " + "x" * 200_000),
            ("GET / HTTP/1.1",),
        ):
            assert raw(page, *wrong)[0] == 400, wrong[:3]
        large = raw(page, f"POST {pause} HTTP/1.1", HOST, f"Content-Length: {5 * 2**20}", body=b"x")
        assert large[0] == 413
        assert page.ask("GET", "/livez")[0] == 200


def test_who_guesses_waits_whatever_address_he_says_he_has(place: Place) -> None:
    viewer = place.kq("web", "--new-token", "--role", "view", "--json").json
    place.write(
        "kq.yaml",
        f"url: sqlite:///kq.db\nweb:\n  users: {{ann: edit {CHEAP}}}\n  tokens: {{viewer: {viewer['line']}}}\n",
    )
    with serving(place) as page:
        seal = re.search(r'name="seal" value="(\w+)"', page.ask("GET", "/login", Cookie="kq_session=v")[2])
        assert seal is not None
        answers = []
        for number in range(7):
            said = urllib.parse.urlencode({"seal": seal[1], "name": "ann", "password": f"guess {number}"})
            forged = {"X_Forwarded_For": f"192.0.2.{number}", "Forwarded": f"for=192.0.2.{number}"}
            answers.append(page.ask("POST", "/login", said, Cookie="kq_session=v", Content_Type=FORM, **forged)[0])
        assert answers == [401] * 5 + [429] * 2
        token = {"Authorization": f"Bearer {viewer['token']}", "Content_Type": "application/json"}
        status, _, text = page.ask("POST", "/api/v1/queues/default/pause", "{}", **token)
        assert (status, "takes the role operate" in text) == (403, True)
        assert page.ask("GET", "/api/v1/queues", Authorization="Bearer nobody")[0] == 401


def test_where_the_settings_protect_it_all_may_only_look(place: Place) -> None:
    place.write("kq.yaml", "url: sqlite:///kq.db\nprotected: true\n")
    with serving(place) as page:
        page.open(place)
        _, _, text = page.ask("GET", "/api/v1/me", Cookie=page.cookie)
        me = json.loads(text)
        assert me["role"] == "view"
        assert re.findall('<form method="post" action="(.*?)"', page.ask("GET", "/queues/default")[2]) == ["/logout"]
        refused = page.ask("POST", "/queues/default/pause", f"seal={me['seal']}", Cookie=page.cookie, Content_Type=FORM)
        assert (refused[0], "takes the role operate" in refused[2]) == (403, True)
