"""The one way for a test to wait: it ends as soon as the state is there, and gives up late."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

LIMIT = 60.0  # seconds; a loaded machine may take most of them for what takes a moment elsewhere
PAUSE = 0.01  # seconds

Found = TypeVar("Found")


def wait_until(condition: Callable[[], Found], what: str, limit: float = LIMIT) -> Found:
    """What `condition` gives once it gives something true. `what` completes the sentence of a wait in vain."""
    deadline = time.monotonic() + limit
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"Waited for {limit:g} s until {what}; the last look gave {found!r}.")
        time.sleep(PAUSE)
    return found
