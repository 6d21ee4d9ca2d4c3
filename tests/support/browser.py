"""A headless browser, controlled through a pipe with the DevTools protocol, without a driver or a socket."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
TIMEOUT = 60.0  # seconds for a response of the browser, or for a condition on a page


def installed() -> str:
    """The path of the browser. Skips the test if none is installed."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip("no browser is installed: run `apt-get install chromium`")


class Page:
    """The only page of a new browser, `width` by `height` pixels."""

    def __init__(self, width: int = 1_000, height: int = 700) -> None:
        self._size = (width, height)
        self._sent = 0
        self._unread = b""
        self._session: str | None = None

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="deltadex-browser-", ignore_cleanup_errors=True)
        (browser_input, self._out), (self._in, browser_output) = _pipe(), _pipe()
        self._process = subprocess.Popen(
            _on_descriptors_3_and_4(
                browser_input, browser_output, _command(installed(), self._folder.name, self._size)
            ),
            pass_fds=(browser_input, browser_output),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(browser_input)
        os.close(browser_output)
        target = self._request("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._request("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._request("Page.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._session = None
        try:
            self._send("Browser.close")
            self._process.wait(TIMEOUT)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._folder.cleanup()

    def open(self, url: str) -> None:
        self._request("Page.navigate", url=url)

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, converted through JSON."""
        response = self._request("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in response, response["exceptionDetails"]
        return response["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Wait until an expression is truthy, and return its value."""
        deadline = time.monotonic() + TIMEOUT
        while not (value := self.run(expression)):
            assert time.monotonic() < deadline, f"{expression} is still {value!r} in: {self.text('body')}"
            time.sleep(0.02)
        return value

    def text(self, selector: str) -> str:
        return self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def move_to(self, x: float, y: float) -> None:
        self._mouse("mouseMoved", x, y)

    def click(self, x: float, y: float) -> None:
        self.move_to(x, y)
        self._mouse("mousePressed", x, y, button="left", clickCount=1)
        self._mouse("mouseReleased", x, y, button="left", clickCount=1)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.move_to(*start)
        self._mouse("mousePressed", *start, button="left", clickCount=1)
        self._mouse("mouseMoved", *end, button="left", buttons=1)
        self._mouse("mouseReleased", *end, button="left", clickCount=1)

    def scroll(self, x: float, y: float, by: float) -> None:
        self._mouse("mouseWheel", x, y, deltaX=0, deltaY=by)

    def type(self, text: str) -> None:
        self._request("Input.insertText", text=text)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self._request("Input.dispatchKeyEvent", type=kind, key=key)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._request("Page.captureScreenshot")["data"]))

    def _mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self._request("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def _send(self, method: str, **parameters: Any) -> int:
        self._sent += 1
        message: dict[str, Any] = {"id": self._sent, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        return self._sent

    def _request(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = self._send(method, **parameters)
        while (message := self._receive()).get("id") != number:
            pass
        assert "error" not in message, f"{method}: {message['error']}"
        return message["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._in], [], [], TIMEOUT)
            part = os.read(self._in, 2**16) if ready else b""
            assert part, "the browser does not respond"
            self._unread += part
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)


def _command(browser: str, folder: str, size: tuple[int, int]) -> list[str]:
    return [
        browser,
        "--headless=new",
        "--no-sandbox",  # it runs as root in a container, and only opens pages of the tests
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--remote-debugging-pipe",
        f"--user-data-dir={folder}",
        f"--window-size={size[0]},{size[1]}",
    ]


def _pipe() -> tuple[int, int]:
    """A pipe with both ends above the descriptors 3 and 4, which the browser uses."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]


def _on_descriptors_3_and_4(browser_input: int, browser_output: int, command: list[str]) -> list[str]:
    script = f'exec 3<&{browser_input} 4>&{browser_output} {browser_input}<&- {browser_output}>&-; exec "$@"'
    return ["bash", "-c", script, "browser", *command]
