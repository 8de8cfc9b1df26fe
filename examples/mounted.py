"""The page of kq inside an application of your own (Starlette here, FastAPI alike), which says who may do what.

    python examples/mounted.py
    KQ_URL=redis://localhost:6379/0 python examples/mounted.py

It asks itself over HTTP and ends. To look at it in a browser: `uvicorn examples.mounted:web`, then http://localhost:8000/kq/.
Needs the extra `web`: pip install 'kq-jobs[web]'.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.request import Request, urlopen

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as Asked
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import kq
from kq.web import User, asgi_app

app = kq.App("mounted", queue="mounted")
control = kq.Control(app)


@app.job
def greet(name: str, password: str = "") -> str:
    return f"hello {name}"


def authorize(request: Asked) -> User | None:
    """Who asks, as this application knows it: here by a header, in yours by its session."""
    name = request.headers.get("x-user")
    if name is None:
        return None
    return User(name, "edit" if name == "ann" else "view")


dashboard = asgi_app(control, authorize=authorize)


@asynccontextmanager
async def lifespan(web: Starlette) -> AsyncIterator[None]:
    yield
    dashboard.close()
    control.close()
    app.close()


async def home(request: Asked) -> PlainTextResponse:
    return PlainTextResponse("the shop\n")


web = Starlette(routes=[Route("/", home), Mount("/kq", dashboard)], lifespan=lifespan)


def ask(port: int, path: str, user: str = "", change: dict[str, object] | None = None, **headers: str) -> str:
    """What the page answers."""
    said = {"X-User": user, **headers} if user else headers
    body = None if change is None else json.dumps(change).encode()
    request = Request(f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json", **said})
    with urlopen(request, timeout=20) as answer:
        return str(answer.read().decode())


def main(port: int) -> None:
    greet.submit("ann", password="hunter2")
    print(ask(port, "/").strip())
    print("a queue without a worker:", "no live worker takes queue mounted" in ask(port, "/kq/", "bo"))

    (job,) = json.loads(ask(port, "/kq/api/v1/jobs?queue=mounted", "bo"))
    shown = json.loads(ask(port, f"/kq/api/v1/jobs/{job['id']}", "bo"))
    print("what it is called with:", shown["args"], shown["kwargs"])

    # A change needs the seal of the browser's session; a page of ours has it in its forms.
    request = Request(f"http://127.0.0.1:{port}/kq/api/v1/me", headers={"X-User": "ann"})
    with urlopen(request, timeout=20) as answer:
        seal, cookie = json.loads(answer.read())["seal"], answer.headers["Set-Cookie"].partition(";")[0]
    told = ask(
        port, f"/kq/api/v1/jobs/{job['id']}/rm", "ann", {"reason": "a test"}, **{"X-KQ-Seal": seal, "Cookie": cookie}
    )
    print("deleted:", json.loads(told)["deleted"] == [job["id"]])
    (act, *_) = json.loads(ask(port, "/kq/api/v1/audit", "bo"))
    print("the audit:", act["by"], act["act"], act["reason"])


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as line:
        server = uvicorn.Server(uvicorn.Config(web, log_level="warning", ws="none"))
        serving = threading.Thread(target=server.run, args=([line],))
        serving.start()
        try:
            main(line.getsockname()[1])
        finally:
            server.should_exit = True
            serving.join()

# prints: the shop
# prints: a queue without a worker: True
# prints: what it is called with: ['ann'] {'password': '***'}
# prints: deleted: True
# prints: the audit: ann deleted a test
