"""What a failure of an ingest means: which error it is, whether the job may pass later, and how long to wait."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from catalog.errors import CatalogError, DatabaseUnavailable, HubRateLimited, NativeCodeFailed, OutOfMemory, Unavailable
from catalog.errors.root import first_line
from catalog.tables import Job

LONGEST_DELAY = 600  # seconds
PATIENCE = 600  # seconds that a result waits for Postgres to come back

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetryPolicy:
    """`base` seconds before the first retry, doubled for each further one, with jitter; after `max_attempts` failures
    there is none, and none after `deadly` workers died of the job.
    """

    max_attempts: int
    base: float
    deadly: int = 2

    def delay(self, failures: int, error: CatalogError) -> float:
        if isinstance(error, Unavailable) and error.retry_after is not None:
            return error.retry_after + self.base * random.uniform(0, 1)  # not all at the same moment
        return min(self.base * 2 ** (failures - 1), LONGEST_DELAY) * random.uniform(0.5, 1.5)


def failures_before(job: Job) -> int:
    """How many earlier attempts at a claimed job found a fault in it, since it was queued as a new one.

    Those do not count that ended because a worker died or was stopped, or because Postgres went away, nor those that
    were told to slow down: that is none of the job's.
    """
    earlier = job.history[-(job.attempts - 1) :] if job.attempts > 1 else []  # each that ended has a line
    return sum(each["outcome"] == "failed" and each["code"] != HubRateLimited.code for each in earlier)


def as_catalog_error(cause: BaseException) -> tuple[CatalogError, bool]:
    """The error to show, and whether the same job may pass when it is tried again."""
    if isinstance(cause, CatalogError):
        return cause, cause.transient
    if not isinstance(cause, Exception):  # a panic of Rust code, for one: the same files bring it about again
        log.error("a native library gave up", exc_info=cause)
        return NativeCodeFailed(
            f"A native library gave up on the files of this model or its base: {first_line(cause)} "
            "Look at the tokenizer of the base first: a pattern in its tokenizer.json may be too hard to match."
        ), False
    if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
        return OutOfMemory("The model did not fit into this worker's memory."), True
    log.error("an ingest failed in a way that has no name", exc_info=cause)
    return CatalogError(f"The worker failed: {type(cause).__name__}. Its log says more."), True


def patiently(action: Callable[[], T], patience: float = PATIENCE) -> T:
    """Try again while Postgres is away, for so many seconds: a computed result is worth waiting for."""
    deadline, pause = time.monotonic() + patience, 0.5
    while True:
        try:
            return action()
        except DatabaseUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(pause)
            pause = min(2 * pause, 10)
