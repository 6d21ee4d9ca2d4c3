from __future__ import annotations

import dataclasses
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sqlalchemy.orm import Session

from catalog.database import Database
from catalog.errors import ModelNotFound, NotIndexed, SpaceNotFound
from catalog.spaces import repository as spaces
from catalog.vectors.repository import feed as vector_feed
from catalog.vectors.repository import vectors
from catalog.vectors.repository.feed import Change
from tests.support import catalog as entries
from tests.support.catalog import SPACE
from tests.support.waiting import LIMIT

FEATURE = SPACE.feature


def feed(database: Database, after: int = 0, limit: int = 1000) -> list[Change]:
    with database.transaction() as session:
        return vector_feed.changes(session, after, limit)


def test_a_vector_comes_back_bit_by_bit(database: Database):
    vector = np.random.default_rng(0).standard_normal(9).astype(np.float32)
    model_id = entries.put(database, "a/b", vector)

    [change] = feed(database)

    assert change.model_id == model_id
    assert change.vector.dtype == np.float32
    np.testing.assert_array_equal(change.vector, vector)


def test_doubles_are_stored_as_float32(database: Database):
    entries.put(database, "a/b", np.array([1 / 3, 2 / 3]))
    assert feed(database)[0].vector.tolist() == np.array([1 / 3, 2 / 3], dtype=np.float32).tolist()


def test_the_feed_is_in_the_order_of_the_writes(database: Database):
    ids = [entries.put(database, f"a/m{number}", [number, 1]) for number in range(5)]

    changes = feed(database)

    assert [change.model_id for change in changes] == ids
    assert [change.seq for change in changes] == sorted(change.seq for change in changes)


def test_the_feed_is_read_page_by_page(database: Database):
    for number in range(5):
        entries.put(database, f"a/m{number}", [number, 1])
    everything = [change.seq for change in feed(database)]

    seen: list[int] = []
    while page := feed(database, seen[-1] if seen else 0, limit=2):
        seen += [change.seq for change in page]
    assert seen == everything


def test_a_commit_stored_again_moves_to_the_end_of_the_feed(database: Database):
    one = entries.put(database, "a/one", [1, 0])
    two = entries.put(database, "a/two", [0, 1])
    entries.put(database, "a/one", [2, 2])

    changes = feed(database)

    assert [change.model_id for change in changes] == [two, one]
    assert changes[1].vector.tolist() == [2, 2]


def test_a_model_that_moves_nothing_is_nothing_in_the_feed(database: Database):
    entries.put(database, "a/b", [1e-9, 0], no_shift=True)
    assert feed(database)[0].vector is None


def test_a_removed_model_leaves_tombstones(database: Database):
    model_id = entries.put(database, "a/b", [1, 0], commit="one")
    entries.put(database, "a/b", [0, 1], commit="two")
    before = feed(database)[-1].seq

    entries.remove(database, model_id)

    after = feed(database, before)
    assert [(change.model_id, change.vector) for change in after] == [(model_id, None)] * 2
    assert feed(database) == after


def test_a_republished_commit_replaces_what_came_after_it(database: Database):
    model_id = entries.put(database, "a/b", [1, 0], commit="one")
    entries.put(database, "a/b", [0, 1], commit="two")
    with database.transaction() as session:
        first = vectors.embedded(session, model_id, entries.sha("one"), [SPACE])
        vector_feed.republish(session, first.id)

    assert [change.vector.tolist() for change in feed(database)] == [[0, 1], [1, 0]]
    with database.transaction() as session:
        assert vectors.newest(session, "a/b", features=(FEATURE,)).vector.tolist() == [1, 0]


def test_a_republished_tombstone_is_a_vector_again(database: Database):
    model_id = entries.put(database, "a/b", [1, 0])
    entries.remove(database, model_id)
    with database.transaction() as session:
        revision = vectors.embedded(session, model_id, entries.sha("one"), [SPACE])
        vector_feed.republish(session, revision.id)

    assert [change.vector.tolist() for change in feed(database)] == [[1, 0]]


def test_the_last_place_of_the_feed(database: Database):
    with database.transaction() as session:
        assert vector_feed.last_seq(session) == 0
    entries.put(database, "a/b", [1])
    with database.transaction() as session:
        assert vector_feed.last_seq(session) == feed(database)[-1].seq


def store(session: Session, repo_id: str) -> int:
    vector_feed.lock_feed(session)
    revision = entries.put_revision(session, repo_id)
    space = spaces.ensure(session, SPACE, 2)
    return vector_feed.store(session, space, revision, np.ones(2), norm=1, no_shift=False)


def test_a_reader_never_misses_a_transaction_that_drew_its_place_early_and_commits_late(database: Database):
    with database.transaction() as session:
        spaces.ensure(session, SPACE, 2)  # or the two would wait for each other here
    drawn, go_on = threading.Event(), threading.Event()

    def slow() -> int:
        with database.transaction() as session:
            seq = store(session, "a/slow")
            drawn.set()
            assert go_on.wait(LIMIT)
        return seq

    def quick() -> int:
        assert drawn.wait(LIMIT)
        with database.transaction() as session:
            return store(session, "a/quick")

    with ThreadPoolExecutor(2) as pool:
        late, early = pool.submit(slow), pool.submit(quick)
        assert drawn.wait(LIMIT)
        time.sleep(0.2)  # the quick one could commit now, were it not for the lock
        position = max((change.seq for change in feed(database)), default=0)
        go_on.set()
        expected = [late.result(LIMIT), early.result(LIMIT)]

    assert [change.seq for change in feed(database, position)] == expected == sorted(expected)


def test_a_reader_sees_every_change_of_many_writers_once(database: Database):
    with database.transaction() as session:
        spaces.ensure(session, SPACE, 2)
    writers, each = 6, 12
    writing = threading.Event()
    writing.set()

    def write(writer: int) -> set[int]:
        pauses, drawn = random.Random(writer), set()
        for number in range(each):
            with database.transaction() as session:
                drawn.add(store(session, f"a/m{writer}-{number}"))
                time.sleep(pauses.uniform(0, 0.005))
        return drawn

    def read() -> list[int]:
        seen: list[int] = []
        last_look = False
        while True:
            page = feed(database, seen[-1] if seen else 0, limit=5)
            seen += [change.seq for change in page]
            if last_look and not page:
                return seen
            last_look = not writing.is_set()

    with ThreadPoolExecutor(writers + 1) as pool:
        reader = pool.submit(read)
        drawn = [seq for found in pool.map(write, range(writers)) for seq in found]
        writing.clear()
        seen = reader.result(LIMIT)

    assert len(drawn) == writers * each
    assert seen == sorted(drawn)


def test_removing_while_others_write_keeps_the_order(database: Database):
    model_id = entries.put(database, "a/old", [1, 1])
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as session:
            vector_feed.remove(session, model_id)
            other = pool.submit(entries.put, database, "a/new", [1, 2])
            time.sleep(0.1)
            assert not other.done()
        new = other.result(LIMIT)
    assert [change.model_id for change in feed(database)] == [model_id, new]


def test_the_newest_vector_and_all_that_belongs_to_it(database: Database):
    entries.put(database, "a/b", [3, 4])
    with database.transaction() as session:
        stored = vectors.newest(session, "a/b", features=(FEATURE,))
    assert (stored.model.repo_id, stored.revision.sha, stored.space.key) == ("a/b", entries.sha("one"), SPACE.key)
    assert (stored.vector.tolist(), stored.norm, stored.no_shift) == ([3, 4], 5, False)


def test_the_newest_vector_is_taken_from_the_space_that_serves(database: Database):
    newer = dataclasses.replace(SPACE, encoder_version="2")
    entries.put(database, "a/b", [1, 0], space=SPACE)
    entries.put(database, "a/b", [0, 1], space=newer)
    with database.transaction() as session:
        assert vectors.newest(session, "a/b", features=(FEATURE,)).space.key == SPACE.key
        assert vectors.newest(session, "a/b", features=(FEATURE,), space_key=newer.key).vector.tolist() == [0, 1]


def test_a_model_that_is_in_no_space_that_serves_is_taken_from_another(database: Database):
    newer = dataclasses.replace(SPACE, encoder_version="2")
    entries.put(database, "a/b", [1, 0], space=SPACE)
    entries.put(database, "a/new", [0, 1], space=newer)
    with database.transaction() as session:
        assert vectors.newest(session, "a/new", features=(FEATURE,)).space.key == newer.key


def test_another_features_vector_is_not_taken(database: Database):
    entries.put(database, "a/b", [1, 0], space=dataclasses.replace(SPACE, feature="delta_logits"))
    with pytest.raises(NotIndexed, match="delta_activations"), database.transaction() as session:
        vectors.newest(session, "a/b", features=(FEATURE,))


def test_an_unknown_model_has_no_vector(database: Database):
    with pytest.raises(ModelNotFound), database.transaction() as session:
        vectors.newest(session, "a/b", features=(FEATURE,))


def test_a_model_that_waits_has_no_vector_yet(database: Database):
    entries.put_model(database, "a/b")
    with pytest.raises(NotIndexed, match="pending"), database.transaction() as session:
        vectors.newest(session, "a/b", features=(FEATURE,))


def test_a_removed_model_has_no_vector(database: Database):
    entries.remove(database, entries.put(database, "a/b", [1, 0]))
    with pytest.raises(NotIndexed), database.transaction() as session:
        vectors.newest(session, "a/b", features=(FEATURE,))


def test_an_unknown_space_is_not_found(database: Database):
    entries.put(database, "a/b", [1, 0])
    with pytest.raises(SpaceNotFound), database.transaction() as session:
        vectors.newest(session, "a/b", features=(FEATURE,), space_key="0" * 64)


def test_a_known_space_without_the_model_is_not_indexed(database: Database):
    other = dataclasses.replace(SPACE, encoder_version="2")
    entries.put(database, "a/b", [1, 0])
    entries.put(database, "a/c", [1, 0], space=other)
    with pytest.raises(NotIndexed), database.transaction() as session:
        vectors.newest(session, "a/b", features=(FEATURE,), space_key=other.key)


@pytest.mark.parametrize(
    "change", [{"layer": 0}, {"probe_set": "d" * 64}, {"dtype": "bfloat16"}, {"encoder_version": "2"}], ids=str
)
def test_what_was_embedded_under_another_contract_is_not_embedded(database: Database, change: dict):
    model_id = entries.put(database, "a/b", [1, 0])
    with database.transaction() as session:
        like = dataclasses.replace(SPACE, base_repo=None, base_sha=None)
        assert vectors.embedded(session, model_id, entries.sha("one"), [like]) is not None
        other = dataclasses.replace(like, **change)
        assert vectors.embedded(session, model_id, entries.sha("one"), [other]) is None


def test_a_commit_is_embedded_when_all_features_are(database: Database):
    model_id = entries.put(database, "a/b", [1, 0])
    logits = dataclasses.replace(SPACE, feature="delta_logits", encoder_version="1+data")
    wanted = [SPACE, logits]
    with database.transaction() as session:
        assert vectors.embedded(session, model_id, entries.sha("one"), wanted) is None
    entries.put(database, "a/b", [1, 0, 0], space=logits)
    with database.transaction() as session:
        assert vectors.embedded(session, model_id, entries.sha("one"), wanted) is not None
        assert vectors.embedded(session, model_id, entries.sha("two"), wanted) is None


def test_a_commit_is_indexed_while_it_is_the_current_one(database: Database):
    model_id = entries.put(database, "a/b", [1, 0], commit="one")
    entries.put(database, "a/b", [1, 0], commit="two")
    with database.transaction() as session:
        found = [vectors.is_indexed(session, model_id, entries.sha(commit)) for commit in ("one", "two", "three")]
    assert found == [False, True, False]


def test_the_first_of_the_preferred_features_that_the_newest_revision_has(database: Database):
    other = dataclasses.replace(SPACE, feature="delta_layers")
    entries.put(database, "a/b", [1, 0])
    entries.put(database, "a/b", [0, 1, 2], space=other)
    with database.transaction() as session:
        assert vectors.newest(session, "a/b").space.key == other.key
    entries.put(database, "a/b", [0, 1], commit="two")
    with database.transaction() as session:
        assert vectors.newest(session, "a/b").vector.tolist() == [0, 1]
