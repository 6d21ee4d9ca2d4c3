from __future__ import annotations

from app.api.services.stats_cache import KEEP_FACTOR, MAX_KEPT, SLOW, StatsCache
from catalog.database import Database
from catalog.tables import ModelState
from tests.support import catalog as entries


class Clock:
    """A clock that advances by `step` with each reading."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def pending(cache: StatsCache) -> int:
    return cache.get().models[ModelState.PENDING]


def test_counts_that_took_long_are_kept_for_a_while(database: Database):
    clock = Clock(SLOW)
    cache = StatsCache(database, 30, clock)
    assert pending(cache) == 0
    entries.put_model(database, "a/b")
    assert pending(cache) == 0
    clock.now += min(KEEP_FACTOR * SLOW, MAX_KEPT)
    assert pending(cache) == 1


def test_quick_counts_are_not_kept(database: Database):
    cache = StatsCache(database, 30, Clock(SLOW / 2))
    assert pending(cache) == 0
    entries.put_model(database, "a/b")
    assert pending(cache) == 1
