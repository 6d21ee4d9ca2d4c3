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
from catalog.index import follower
from catalog.index.follower import Follower
from catalog.vectors.repository import feed
from tests.support import catalog as entries
from tests.support.catalog import SPACE
from tests.support.outage import away
from tests.support.waiting import wait_until


@pytest.fixture
def still(database: Database) -> Follower:
    """A follower without its thread: it reads when the test says so."""
    return Follower(database, interval=3600)


@pytest.fixture
def running(database: Database) -> Iterator[Follower]:
    running = Follower(database, interval=0.01)
    running.start()
    yield running
    running.stop()


def nearest(index: Follower, query: list[float], space_id: int = 1) -> list[int]:
    return index.index(space_id, len(query)).search(np.array(query), 10).model_ids.tolist()


def test_it_is_not_loaded_before_its_first_look(still: Follower):
    assert not still.loaded
    with pytest.raises(IndexNotLoaded) as refused:
        still.index(1, 2)
    assert refused.value.retry_after == 1


def test_a_space_without_vectors_is_an_empty_index(still: Follower):
    assert still.catch_up() == 0
    assert still.loaded
    assert nearest(still, [1, 0]) == []


def test_a_space_is_loaded_by_its_first_search_with_everything_in_it(database: Database, still: Follower):
    still.catch_up()
    ids = [entries.put(database, f"a/m{number}", [number + 1, 1]) for number in range(8)]

    assert still.report() == []
    assert sorted(nearest(still, [1, 1])) == ids
    assert [(each.space_id, each.vectors) for each in still.report()] == [(1, 8)]


def test_it_catches_up_page_by_page(database: Database, still: Follower, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(follower, "PAGE", 3)
    entries.put(database, "a/first", [1, 1])
    still.catch_up()
    nearest(still, [1, 1])
    ids = [entries.put(database, f"a/m{number}", [number + 1, 1]) for number in range(8)]

    assert still.catch_up() == 8
    assert sorted(nearest(still, [1, 1])) == [1, *ids]
    assert still.catch_up() == 0


def test_a_replaced_vector_is_replaced(database: Database, still: Follower):
    one, two = entries.put(database, "a/one", [1, 0]), entries.put(database, "a/two", [1, 1])
    still.catch_up()
    assert nearest(still, [1, 0]) == [one, two]

    entries.put(database, "a/one", [0, 1], commit="two")
    still.catch_up()
    assert nearest(still, [1, 0]) == [two, one]


def test_a_removed_model_is_gone(database: Database, still: Follower):
    one, two = entries.put(database, "a/one", [1, 0]), entries.put(database, "a/two", [1, 1])
    still.catch_up()
    assert nearest(still, [1, 0]) == [one, two]
    entries.remove(database, one)

    still.catch_up()
    assert nearest(still, [1, 0]) == [two]


def test_a_model_that_moves_nothing_any_more_is_gone(database: Database, still: Follower):
    one = entries.put(database, "a/one", [1, 0])
    still.catch_up()
    assert nearest(still, [1, 0]) == [one]
    entries.put(database, "a/one", [1e-9, 0], commit="two", no_shift=True)

    still.catch_up()
    assert nearest(still, [1, 0]) == []


def test_an_index_that_became_empty_knows_how_far_it_has_read(database: Database, still: Follower):
    entries.remove(database, entries.put(database, "a/one", [1, 0]))
    entries.put(database, "a/two", [1, 0])
    still.catch_up()
    assert nearest(still, [1, 0]) == [2]
    entries.remove(database, 2)
    still.catch_up()

    with database.transaction() as session:
        assert still.index(1, 2).covered_seq == feed.last_seq(session)


def test_a_space_of_nothing_but_tombstones_is_empty(database: Database, still: Follower):
    entries.remove(database, entries.put(database, "a/one", [1, 0]))
    still.catch_up()
    assert nearest(still, [1, 0]) == []


def test_spaces_do_not_mix(database: Database, still: Follower):
    other = dataclasses.replace(SPACE, encoder_version="2")
    one = entries.put(database, "a/one", [1, 0])
    two = entries.put(database, "a/two", [1, 0, 0], space=other)
    still.catch_up()

    assert nearest(still, [1, 0], space_id=1) == [one]
    assert nearest(still, [1, 0, 0], space_id=2) == [two]


def test_its_thread_takes_in_what_is_committed(database: Database, running: Follower):
    wait_until(lambda: running.loaded, "the feed is read")
    model_id = entries.put(database, "a/one", [1, 0])
    wait_until(lambda: nearest(running, [1, 0]) == [model_id], "the model is found")


def test_it_answers_during_an_outage_and_catches_up_after_it(
    database: Database, running: Follower, servers: EmbeddedServers, caplog: pytest.LogCaptureFixture
):
    one = entries.put(database, "a/one", [1, 0])
    wait_until(lambda: running.loaded and nearest(running, [1, 0]) == [one], "the model is found")
    caplog.set_level(logging.WARNING)

    with away(servers.postgres):
        wait_until(lambda: "the change feed cannot be read" in caplog.text, "the outage is noticed")
        assert nearest(running, [1, 0]) == [one]
    two = entries.put(database, "a/two", [0, 1])

    wait_until(lambda: nearest(running, [1, 0]) == [one, two], "both are found")


def test_a_start_during_an_outage_loads_after_it(
    database: Database, servers: EmbeddedServers, caplog: pytest.LogCaptureFixture
):
    one = entries.put(database, "a/one", [1, 0])
    caplog.set_level(logging.WARNING)
    late = Follower(database, interval=0.01)
    with away(servers.postgres):
        late.start()
        wait_until(lambda: "the change feed cannot be read" in caplog.text, "the outage is noticed")
        assert not late.loaded
    try:
        wait_until(lambda: late.loaded, "the feed is read")
        assert nearest(late, [1, 0]) == [one]
    finally:
        late.stop()


def test_an_entry_that_does_not_fit_its_space_is_passed_over(database: Database, still: Follower):
    one = entries.put(database, "a/one", [1, 0])
    still.catch_up()
    assert nearest(still, [1, 0]) == [one]

    entries.put(database, "a/odd", [1, 0, 0])
    still.catch_up()

    assert nearest(still, [1, 0]) == [one]
    assert Follower(database, interval=1).catch_up() == 0


def test_spaces_are_dropped_by_least_use_within_the_memory(database: Database):
    spaces = [dataclasses.replace(SPACE, encoder_version=str(number)) for number in range(3)]
    for space in spaces:
        entries.put(database, "a/one", np.ones(64), space=space)
    small = Follower(database, interval=3600, memory=2 * 64 * 4)
    small.catch_up()

    for space_id in (1, 2, 1, 3):
        assert nearest(small, [1] * 64, space_id) == [1]
    assert [each.space_id for each in small.report()] == [1, 3]
    assert nearest(small, [1] * 64, 2) == [1]  # it is loaded again


def test_a_space_larger_than_the_memory_is_searched_all_the_same(database: Database):
    entries.put(database, "a/one", np.ones(64))
    small = Follower(database, interval=3600, memory=1)
    small.catch_up()
    assert nearest(small, [1] * 64) == [1]
    small.catch_up()
    assert len(small.report()) == 1


def test_a_space_that_many_ask_for_at_once_is_loaded_once(database: Database, still: Follower):
    entries.put(database, "a/one", [1, 0])
    still.catch_up()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: still.index(1, 2), range(32)))
    assert len({id(index) for index in found}) == 1
