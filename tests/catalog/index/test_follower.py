from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from app.deployment.embedded import EmbeddedServers
from catalog.database import Database
from catalog.errors import IndexNotLoaded
from catalog.index import follower as index_follower
from catalog.index.follower import IndexFollower
from catalog.vectors.repository import feed
from tests.support import catalog as entries
from tests.support.catalog import SPACE
from tests.support.outage import server_down
from tests.support.waiting import wait_until


@pytest.fixture
def follower(database: Database) -> IndexFollower:
    """A follower whose thread is not started, so that the test calls `sync`."""
    return IndexFollower(database, interval=3600)


@pytest.fixture
def running(database: Database) -> Iterator[IndexFollower]:
    running = IndexFollower(database, interval=0.01)
    running.start()
    yield running
    running.stop()


def nearest(index: IndexFollower, query: list[float], space_id: int = 1) -> list[int]:
    return index.index(space_id, len(query)).search(np.array(query), 10).model_ids.tolist()


def test_index_is_not_loaded_before_the_first_sync(follower: IndexFollower):
    assert not follower.loaded
    with pytest.raises(IndexNotLoaded) as raised:
        follower.index(1, 2)
    assert raised.value.retry_after == 1


def test_space_without_vectors_has_an_empty_index(follower: IndexFollower):
    assert follower.sync() == 0
    assert follower.loaded
    assert nearest(follower, [1, 0]) == []


def test_first_search_loads_all_vectors_of_a_space(database: Database, follower: IndexFollower):
    follower.sync()
    ids = [entries.put(database, f"a/m{number}", [number + 1, 1]) for number in range(8)]

    assert follower.report() == []
    assert sorted(nearest(follower, [1, 1])) == ids
    assert [(report.space_id, report.vectors) for report in follower.report()] == [(1, 8)]


def test_sync_reads_the_feed_in_pages(database: Database, follower: IndexFollower, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(index_follower, "FEED_PAGE_SIZE", 3)
    entries.put(database, "a/first", [1, 1])
    follower.sync()
    nearest(follower, [1, 1])
    ids = [entries.put(database, f"a/m{number}", [number + 1, 1]) for number in range(8)]

    assert follower.sync() == 8
    assert sorted(nearest(follower, [1, 1])) == [1, *ids]
    assert follower.sync() == 0


def test_sync_replaces_a_vector(database: Database, follower: IndexFollower):
    one, two = entries.put(database, "a/one", [1, 0]), entries.put(database, "a/two", [1, 1])
    follower.sync()
    assert nearest(follower, [1, 0]) == [one, two]

    entries.put(database, "a/one", [0, 1], commit="two")
    follower.sync()
    assert nearest(follower, [1, 0]) == [two, one]


def test_sync_drops_a_removed_model(database: Database, follower: IndexFollower):
    one, two = entries.put(database, "a/one", [1, 0]), entries.put(database, "a/two", [1, 1])
    follower.sync()
    assert nearest(follower, [1, 0]) == [one, two]
    entries.remove(database, one)

    follower.sync()
    assert nearest(follower, [1, 0]) == [two]


def test_sync_drops_a_model_that_became_no_shift(database: Database, follower: IndexFollower):
    one = entries.put(database, "a/one", [1, 0])
    follower.sync()
    assert nearest(follower, [1, 0]) == [one]
    entries.put(database, "a/one", [1e-9, 0], commit="two", no_shift=True)

    follower.sync()
    assert nearest(follower, [1, 0]) == []


def test_covered_seq_advances_when_the_index_becomes_empty(database: Database, follower: IndexFollower):
    entries.remove(database, entries.put(database, "a/one", [1, 0]))
    entries.put(database, "a/two", [1, 0])
    follower.sync()
    assert nearest(follower, [1, 0]) == [2]
    entries.remove(database, 2)
    follower.sync()

    with database.transaction() as session:
        assert follower.index(1, 2).covered_seq == feed.last_seq(session)


def test_space_with_only_removed_models_is_empty(database: Database, follower: IndexFollower):
    entries.remove(database, entries.put(database, "a/one", [1, 0]))
    follower.sync()
    assert nearest(follower, [1, 0]) == []


def test_spaces_are_searched_separately(database: Database, follower: IndexFollower):
    other = dataclasses.replace(SPACE, encoder_version="2")
    one = entries.put(database, "a/one", [1, 0])
    two = entries.put(database, "a/two", [1, 0, 0], space=other)
    follower.sync()

    assert nearest(follower, [1, 0], space_id=1) == [one]
    assert nearest(follower, [1, 0, 0], space_id=2) == [two]


def test_running_follower_finds_a_committed_model(database: Database, running: IndexFollower):
    wait_until(lambda: running.loaded, "the feed is read")
    model_id = entries.put(database, "a/one", [1, 0])
    wait_until(lambda: nearest(running, [1, 0]) == [model_id], "the model is found")


def test_search_works_during_a_database_outage_and_syncs_after_it(
    database: Database, running: IndexFollower, servers: EmbeddedServers, caplog: pytest.LogCaptureFixture
):
    one = entries.put(database, "a/one", [1, 0])
    wait_until(lambda: running.loaded and nearest(running, [1, 0]) == [one], "the model is found")
    caplog.set_level(logging.WARNING)

    with server_down(servers.postgres):
        wait_until(lambda: "index-follower failed and will try again" in caplog.text, "the outage is noticed")
        assert nearest(running, [1, 0]) == [one]
    two = entries.put(database, "a/two", [0, 1])

    wait_until(lambda: nearest(running, [1, 0]) == [one, two], "both are found")


def test_follower_started_during_an_outage_loads_after_it(
    database: Database, servers: EmbeddedServers, caplog: pytest.LogCaptureFixture
):
    one = entries.put(database, "a/one", [1, 0])
    caplog.set_level(logging.WARNING)
    late = IndexFollower(database, interval=0.01)
    with server_down(servers.postgres):
        late.start()
        wait_until(lambda: "index-follower failed and will try again" in caplog.text, "the outage is noticed")
        assert not late.loaded
    try:
        wait_until(lambda: late.loaded, "the feed is read")
        assert nearest(late, [1, 0]) == [one]
    finally:
        late.stop()


def test_vector_of_another_dimension_is_skipped(database: Database, follower: IndexFollower):
    one = entries.put(database, "a/one", [1, 0])
    follower.sync()
    assert nearest(follower, [1, 0]) == [one]

    entries.put(database, "a/odd", [1, 0, 0])
    follower.sync()

    assert nearest(follower, [1, 0]) == [one]
    assert IndexFollower(database, interval=1).sync() == 0


def test_least_recently_used_index_is_evicted_above_the_memory_limit(database: Database):
    spaces = [dataclasses.replace(SPACE, encoder_version=str(number)) for number in range(3)]
    for space in spaces:
        entries.put(database, "a/one", np.ones(64), space=space)
    small = IndexFollower(database, interval=3600, memory=2 * 64 * 4)
    small.sync()

    for space_id in (1, 2, 1, 3):
        assert nearest(small, [1] * 64, space_id) == [1]
    assert [report.space_id for report in small.report()] == [1, 3]
    assert nearest(small, [1] * 64, 2) == [1]  # it is loaded again


def test_space_larger_than_the_memory_limit_is_still_searched(database: Database):
    entries.put(database, "a/one", np.ones(64))
    small = IndexFollower(database, interval=3600, memory=1)
    small.sync()
    assert nearest(small, [1] * 64) == [1]
    small.sync()
    assert len(small.report()) == 1


def test_concurrent_searches_load_a_space_once(database: Database, follower: IndexFollower):
    entries.put(database, "a/one", [1, 0])
    follower.sync()
    with ThreadPoolExecutor(8) as pool:
        indexes = list(pool.map(lambda _: follower.index(1, 2), range(32)))
    assert len({id(index) for index in indexes}) == 1
