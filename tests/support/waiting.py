"""`wait_until`, which all tests use to wait for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

LIMIT = 60.0  # seconds; generous, because a loaded machine may be very slow
PAUSE = 0.01  # seconds

Value = TypeVar("Value")


def wait_until(condition: Callable[[], Value], what: str, limit: float = LIMIT) -> Value:
    """Poll `condition` until it returns a truthy value, and return this value.

    `what` names the expected state. Raises `AssertionError` after `limit` seconds.
    """
    deadline = time.monotonic() + limit
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"Waited for {limit:g} s until {what}; the last value was {value!r}.")
        time.sleep(PAUSE)
    return value
