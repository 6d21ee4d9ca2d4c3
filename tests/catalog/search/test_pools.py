from __future__ import annotations

from contextlib import ExitStack

import pytest

from catalog.errors import SearchBusy
from catalog.search import pools
from catalog.search.pools import LARGE_POOL_BYTES, MAX_POOL, MAX_POOL_BYTES, SLOTS, largest_pool, slot


@pytest.mark.parametrize("dimension", [1, 1_024, 4_096, 8_192, 65_536, 10**9])
@pytest.mark.parametrize("searches", [1, 5, 100])
def test_pool_is_bounded_by_count_and_bytes(dimension: int, searches: int):
    pool = largest_pool(dimension, searches)
    assert 1 <= pool <= MAX_POOL
    assert pool == 1 or 4 * dimension * pool <= MAX_POOL_BYTES


def test_searches_of_a_batch_share_their_pools():
    assert largest_pool(1_024, 100) * 100 <= pools.FULL_POOLS * largest_pool(1_024)
    assert largest_pool(1_024, 10) == largest_pool(1_024)


def test_large_search_without_a_free_slot_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pools, "SLOT_TIMEOUT", 0.01)
    dimension, candidates = 1_024, LARGE_POOL_BYTES // 4_096
    with ExitStack() as others:
        for _ in range(SLOTS):
            others.enter_context(slot(candidates, dimension))
        with pytest.raises(SearchBusy) as refused, slot(candidates, dimension):
            pass
        with slot(candidates - 1, dimension):
            pass
    assert refused.value.retry_after
    with slot(candidates, dimension):
        pass
