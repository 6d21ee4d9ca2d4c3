"""A real browser without a window, spoken to over a pipe in the DevTools protocol: no driver, no socket."""

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
PATIENCE = 60.0  # seconds for an answer, or for what a page is to become


def installed() -> str:
    """The browser's path; a test without one is skipped, and says what to install."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip("no browser here: `apt-get install chromium` has one")


class Page:
    """One page of a browser of our own, `width` by `height` pixels."""

    def __init__(self, width: int = 1_000, height: int = 700) -> None:
        self._size = (width, height)
        self._sent = 0
        self._unread = b""
        self._session: str | None = None

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="deltadex-browser-", ignore_cleanup_errors=True)
        (its_input, self._out), (self._in, its_output) = _pipe(), _pipe()
        self._process = subprocess.Popen(
            _on_descriptors_3_and_4(its_input, its_output, _command(installed(), self._folder.name, self._size)),
            pass_fds=(its_input, its_output),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(its_input)
        os.close(its_output)
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._ask("Page.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._session = None
        try:
            self._send("Browser.close")
            self._process.wait(PATIENCE)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._folder.cleanup()

    def open(self, url: str) -> None:
        self._ask("Page.navigate", url=url)

    def run(self, expression: str) -> Any:
        """What an expression of JavaScript gives, as JSON does."""
        found = self._ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """What it gives as soon as that is something."""
        deadline = time.monotonic() + PATIENCE
        while not (found := self.run(expression)):
            assert time.monotonic() < deadline, f"{expression} stays {found!r} in: {self.text('body')}"
            time.sleep(0.02)
        return found

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

    def turn_wheel(self, x: float, y: float, by: float) -> None:
        self._mouse("mouseWheel", x, y, deltaX=0, deltaY=by)

    def type(self, text: str) -> None:
        self._ask("Input.insertText", text=text)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self._ask("Input.dispatchKeyEvent", type=kind, key=key)

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot")["data"]))

    def _mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self._ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def _send(self, method: str, **parameters: Any) -> int:
        self._sent += 1
        message: dict[str, Any] = {"id": self._sent, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        return self._sent

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = self._send(method, **parameters)
        while (message := self._receive()).get("id") != number:
            pass
        assert "error" not in message, f"{method}: {message['error']}"
        return message["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._in], [], [], PATIENCE)
            part = os.read(self._in, 2**16) if ready else b""
            assert part, "the browser does not answer"
            self._unread += part
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)


def _command(browser: str, folder: str, size: tuple[int, int]) -> list[str]:
    return [
        browser,
        "--headless=new",
        "--no-sandbox",  # it is root's in a container, and sees pages of ours alone
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--remote-debugging-pipe",
        f"--user-data-dir={folder}",
        f"--window-size={size[0]},{size[1]}",
    ]


def _pipe() -> tuple[int, int]:
    """Both ends far above the descriptors 3 and 4, which the browser wants for its own."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]


def _on_descriptors_3_and_4(its_input: int, its_output: int, command: list[str]) -> list[str]:
    moves = f'exec 3<&{its_input} 4>&{its_output} {its_input}<&- {its_output}>&-; exec "$@"'
    return ["bash", "-c", moves, "browser", *command]
