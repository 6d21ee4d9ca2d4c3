"""The bound on the candidates of a search: each is a vector that is read, and most are held in memory together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from catalog.errors import SearchBusy

MAX_POOL = 4_096  # candidates of a search
MAX_POOL_BYTES = 64 * 2**20  # of their vectors
FULL_POOLS = 16  # pools of that size, or as many candidates in smaller ones, that the searches of a batch have together
LARGE_POOL_BYTES = 16 * 2**20  # from which a search needs a slot
SLOTS = 4  # large searches of a process at once
SLOT_TIMEOUT = 5.0  # seconds that a large search waits for a slot

_slots = BoundedSemaphore(SLOTS)


def largest_pool(dimension: int, searches: int = 1) -> int:
    """The greatest number of candidates that each of some searches of one request may have."""
    pool = min(MAX_POOL, MAX_POOL_BYTES // (4 * dimension))
    return max(1, min(pool, FULL_POOLS * pool // searches))


@contextmanager
def slot(candidates: int, dimension: int) -> Iterator[None]:
    """Hold one of the slots of the process if the vectors of the candidates are large. Raises `SearchBusy`."""
    if 4 * candidates * dimension < LARGE_POOL_BYTES:
        yield
        return
    if not _slots.acquire(timeout=SLOT_TIMEOUT):
        raise SearchBusy(
            "Other searches with large candidate pools are running. Try again, with a smaller `k`, or without "
            "`diversity` and `group_above`.",
            SLOT_TIMEOUT,
        )
    try:
        yield
    finally:
        _slots.release()
