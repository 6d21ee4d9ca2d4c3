"""Throttling of long work in the background."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def throttled(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items, and sleep after each for as long as it took to make and to process, because Postgres gives
    background work the same priority as requests.
    """
    started = time.monotonic()
    for item in items:
        yield item
        time.sleep(time.monotonic() - started)
        started = time.monotonic()
