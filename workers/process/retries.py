"""Retries of failed ingests: the error to store, whether a retry can succeed, and how long to wait."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from catalog.errors import (
    CatalogError,
    DatabaseUnavailable,
    HubRateLimited,
    NativeLibraryFailed,
    OutOfMemory,
    Unavailable,
)
from catalog.errors.root import first_line
from catalog.tables import Job

MAX_RETRY_DELAY = 600  # seconds
MAX_DATABASE_WAIT = 600  # seconds that a computed result waits for Postgres

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with jitter, beginning at `base` seconds.

    There is no retry after `max_attempts` failures, nor after `max_worker_deaths` workers died while running the job.
    """

    max_attempts: int
    base: float
    max_worker_deaths: int = 2

    def delay(self, failures: int, error: CatalogError) -> float:
        if isinstance(error, Unavailable) and error.retry_after is not None:
            return error.retry_after + self.base * random.uniform(0, 1)  # spreads the retries of many jobs
        return min(self.base * 2 ** (failures - 1), MAX_RETRY_DELAY) * random.uniform(0.5, 1.5)


def failures_before(job: Job) -> int:
    """The number of attempts at a claimed job, since it was last submitted, that failed because of the job itself.

    Attempts that ended because a worker died or was stopped, because Postgres was unavailable or because the Hub
    limited the rate do not count.
    """
    earlier = job.history[-(job.attempts - 1) :] if job.attempts > 1 else []  # one entry for each ended attempt
    return sum(attempt["outcome"] == "failed" and attempt["code"] != HubRateLimited.code for attempt in earlier)


def as_catalog_error(cause: BaseException) -> tuple[CatalogError, bool]:
    """The error to store, and whether a retry of the same job can succeed."""
    if isinstance(cause, CatalogError):
        return cause, cause.transient
    if not isinstance(cause, Exception):  # such as a Rust panic, which the same files would cause again
        log.error("a native library failed", exc_info=cause)
        return NativeLibraryFailed(
            f"A native library failed on the files of this model or its base: {first_line(cause)} "
            "Check the tokenizer of the base first: a pattern in its tokenizer.json may be too expensive to match."
        ), False
    if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
        return OutOfMemory("The model did not fit into this worker's memory."), True
    log.error("unexpected error in an ingest", exc_info=cause)
    return CatalogError(f"The worker failed: {type(cause).__name__}. See its log for details."), True


def retry_while_database_down(action: Callable[[], T], max_wait: float = MAX_DATABASE_WAIT) -> T:
    """Retry for up to `max_wait` seconds while Postgres is unavailable: a computed result is worth the wait."""
    deadline, pause = time.monotonic() + max_wait, 0.5
    while True:
        try:
            return action()
        except DatabaseUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(pause)
            pause = min(2 * pause, 10)
