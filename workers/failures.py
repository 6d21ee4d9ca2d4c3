"""What a failure of an ingest means: which error it is, whether the job may pass later, and how long to wait."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from catalog.errors import CatalogError, DatabaseUnavailable, OutOfMemory, Unavailable

LONGEST_DELAY = 600  # seconds
PATIENCE = 600  # seconds that a result waits for Postgres to come back

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetryPolicy:
    """`base` seconds before the first retry, doubled for each further one, with jitter; `max_attempts` in all."""

    max_attempts: int
    base: float

    def delay(self, attempts: int, error: CatalogError) -> float:
        if isinstance(error, Unavailable) and error.retry_after is not None:
            return error.retry_after + self.base * random.uniform(0, 1)  # not all at the same moment
        return min(self.base * 2 ** (attempts - 1), LONGEST_DELAY) * random.uniform(0.5, 1.5)


def as_catalog_error(cause: Exception) -> tuple[CatalogError, bool]:
    """The error to show, and whether the same job may pass when it is tried again."""
    if isinstance(cause, CatalogError):
        return cause, cause.transient
    if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
        return OutOfMemory("The model did not fit into this worker's memory."), True
    log.error("an ingest failed in a way that has no name", exc_info=cause)
    return CatalogError(f"The worker failed: {type(cause).__name__}. Its log says more."), True


def patiently(action: Callable[[], T]) -> T:
    """Try again while Postgres is away: a computed result is worth waiting for."""
    deadline, pause = time.monotonic() + PATIENCE, 0.5
    while True:
        try:
            return action()
        except DatabaseUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(pause)
            pause = min(2 * pause, 10)
