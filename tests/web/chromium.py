"""Chromium without a window, told what to do through ChromeDriver: W3C WebDriver, which is JSON over HTTP."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.request import Request, urlopen

from tests.servers import Server

#: Nothing but the page is asked for: no updates, no lists, no accounts.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
#: The key under which WebDriver names an element.
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Chromium(Server):
    """One browser with one window, and a profile of its own."""

    program = "chromedriver"
    ready = "started successfully on port"

    def command(self) -> list[str]:
        return [self._path, f"--port={self.port}"]

    def environment(self) -> dict[str, str]:
        return {"HOME": str(self.folder)}

    def start(self) -> None:
        super().start()
        self._at = f"http://127.0.0.1:{self.port}/session"
        options = {"args": [*FLAGS, f"--user-data-dir={self.folder / 'profile'}"]}
        wishes = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self._at += f"/{self._ask('POST', '', {'capabilities': {'alwaysMatch': wishes}})['sessionId']}"

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = Request(self._at + path, data, {"Content-Type": "application/json"}, method=method)
        with urlopen(request, timeout=30) as answer:
            return json.load(answer)["value"]

    def _tell(self, command: str, values: object) -> Any:
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": values})

    def renew(self) -> None:
        """Forget who it was: cookies, sizes, complaints."""
        self._ask("POST", "/url", {"url": "about:blank"})
        self._tell("Network.clearBrowserCookies", {})
        self._tell("Emulation.clearDeviceMetricsOverride", {})
        self._tell("Emulation.setScriptExecutionDisabled", {"value": False})
        self.complaints()

    def open(self, address: str) -> None:
        """Go there, and wait until it is loaded."""
        self._ask("POST", "/url", {"url": address})

    @property
    def address(self) -> str:
        """Where it is."""
        return str(self._ask("GET", "/url"))

    def run(self, script: str, *values: object) -> Any:
        """What a script returns; values are its arguments."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": values})

    def text(self, where: str = "body") -> str:
        """What is to be read there, "" where there is no such thing. where: a CSS selector."""
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", where))

    def click(self, where: str) -> None:
        """Click on it, as a human would: it must be there to be seen."""
        self._ask("POST", f"/element/{self._find(where)}/click")

    def write(self, where: str, text: str) -> None:
        """Write text into a field, instead of what stands there."""
        field = self._find(where)
        self._ask("POST", f"/element/{field}/clear")
        self._ask("POST", f"/element/{field}/value", {"text": text})

    def _find(self, where: str) -> str:
        return str(self._ask("POST", "/element", {"using": "css selector", "value": where})[_ELEMENT])

    def look(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Have a window of that many CSS pixels, a phone's when it is narrow, in a light or dark system."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self._tell("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._tell("Emulation.setEmulatedMedia", {"features": [scheme]})

    def forbid_scripts(self) -> None:
        """Run none from the next page on."""
        self._tell("Emulation.setScriptExecutionDisabled", {"value": True})

    def picture(self) -> bytes:
        """All of the page, as PNG."""
        return base64.b64decode(self._tell("Page.captureScreenshot", {"captureBeyondViewport": True})["data"])

    def complaints(self) -> list[str]:
        """What it complained of since the last time: scripts that failed, what the page's policy forbade."""
        return [entry["message"] for entry in self._ask("POST", "/se/log", {"type": "browser"})]
