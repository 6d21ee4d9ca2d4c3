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
from catalog.models.repository import models
from catalog.spaces import repository as spaces
from catalog.tables import Source
from catalog.vectors.repository import feed as vector_feed
from catalog.vectors.repository import vectors
from catalog.vectors.repository.feed import Change
from tests.support import catalog as entries
from tests.support.catalog import SPACE
from tests.support.waiting import LIMIT

FEATURE = SPACE.feature


def feed(database: Database, after: int = 0, limit: int = 1000) -> list[Change]:
    with database.transaction() as session:
        return vector_feed.list_changes(session, after, limit)


def test_vector_is_stored_bit_for_bit(database: Database):
    vector = np.random.default_rng(0).standard_normal(9).astype(np.float32)
    model_id = entries.put(database, "a/b", vector)

    [change] = feed(database)

    assert change.model_id == model_id
    assert change.vector.dtype == np.float32
    np.testing.assert_array_equal(change.vector, vector)


def test_doubles_are_stored_as_float32(database: Database):
    entries.put(database, "a/b", np.array([1 / 3, 2 / 3]))
    assert feed(database)[0].vector.tolist() == np.array([1 / 3, 2 / 3], dtype=np.float32).tolist()


def test_feed_is_in_the_order_of_the_writes(database: Database):
    ids = [entries.put(database, f"a/m{number}", [number, 1]) for number in range(5)]

    changes = feed(database)

    assert [change.model_id for change in changes] == ids
    assert [change.seq for change in changes] == sorted(change.seq for change in changes)


def test_feed_is_read_in_pages(database: Database):
    for number in range(5):
        entries.put(database, f"a/m{number}", [number, 1])
    expected = [change.seq for change in feed(database)]

    seen: list[int] = []
    while page := feed(database, seen[-1] if seen else 0, limit=2):
        seen += [change.seq for change in page]
    assert seen == expected


def test_commit_stored_again_moves_to_the_end_of_the_feed(database: Database):
    one = entries.put(database, "a/one", [1, 0])
    two = entries.put(database, "a/two", [0, 1])
    entries.put(database, "a/one", [2, 2])

    changes = feed(database)

    assert [change.model_id for change in changes] == [two, one]
    assert changes[1].vector.tolist() == [2, 2]


def test_model_without_a_shift_has_no_vector_in_the_feed(database: Database):
    entries.put(database, "a/b", [1e-9, 0], no_shift=True)
    assert feed(database)[0].vector is None


def test_removed_model_leaves_tombstones(database: Database):
    model_id = entries.put(database, "a/b", [1, 0], commit="one")
    entries.put(database, "a/b", [0, 1], commit="two")
    before = feed(database)[-1].seq

    entries.remove(database, model_id)

    after = feed(database, before)
    assert [(change.model_id, change.vector) for change in after] == [(model_id, None)] * 2
    assert feed(database) == after


def put_outside(database: Database, commit: str, vector: list[float]) -> None:
    with database.transaction() as session:
        model = models.get_or_create(session, "a/b", Source.HUB)
        fields = {"kind": "lora", "base_repo": SPACE.base_repo, "base_sha": "b" * 40, "evidence": {}}
        revision = models.store_revision(session, model.id, entries.sha(commit), current=False, **fields)
        space = spaces.ensure(session, SPACE, len(vector))
        vector_feed.store_outside(session, space, revision, np.array(vector), norm=1.0, no_shift=False)


def test_vector_outside_the_feed_is_in_no_page_and_no_answer(database: Database):
    put_outside(database, "branch", [5, 5])
    assert feed(database) == []
    with database.transaction() as session, pytest.raises(NotIndexed):
        vectors.get_encoding(session, "a/b", features=(FEATURE,))

    entries.put(database, "a/b", [1, 0])
    put_outside(database, "other", [6, 6])

    assert [change.vector.tolist() for change in feed(database)] == [[1, 0]]
    with database.transaction() as session:
        assert vectors.get_encoding(session, "a/b", features=(FEATURE,)).vector.tolist() == [1, 0]
        assert list(models.get(session, "a/b").revision.sha) == list(entries.sha("one"))


def test_vector_outside_the_feed_does_not_move_one_that_is_in_it(database: Database):
    for commit, vector in (("one", [1, 0]), ("two", [0, 1])):
        entries.put(database, "a/b", vector, commit=commit)
    before = [change.seq for change in feed(database)]

    put_outside(database, "one", [2, 0])

    assert [change.seq for change in feed(database)] == before
    assert feed(database)[0].vector.tolist() == [2, 0]


def test_last_seq_is_that_of_the_last_change(database: Database):
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


def test_reader_never_misses_a_transaction_that_draws_its_seq_early_and_commits_late(database: Database):
    with database.transaction() as session:
        spaces.ensure(session, SPACE, 2)  # or the two would wait for each other to create it
    drawn, may_commit = threading.Event(), threading.Event()

    def slow() -> int:
        with database.transaction() as session:
            seq = store(session, "a/slow")
            drawn.set()
            assert may_commit.wait(LIMIT)
        return seq

    def quick() -> int:
        assert drawn.wait(LIMIT)
        with database.transaction() as session:
            return store(session, "a/quick")

    with ThreadPoolExecutor(2) as pool:
        late, early = pool.submit(slow), pool.submit(quick)
        assert drawn.wait(LIMIT)
        time.sleep(0.2)  # without the lock, the quick transaction would commit now
        position = max((change.seq for change in feed(database)), default=0)
        may_commit.set()
        expected = [late.result(LIMIT), early.result(LIMIT)]

    assert [change.seq for change in feed(database, position)] == expected == sorted(expected)


def test_reader_sees_every_change_of_many_writers_once(database: Database):
    with database.transaction() as session:
        spaces.ensure(session, SPACE, 2)
    writers, writes = 6, 12
    writing = threading.Event()
    writing.set()

    def write(writer: int) -> set[int]:
        pauses, drawn = random.Random(writer), set()
        for number in range(writes):
            with database.transaction() as session:
                drawn.add(store(session, f"a/m{writer}-{number}"))
                time.sleep(pauses.uniform(0, 0.005))
        return drawn

    def read() -> list[int]:
        seen: list[int] = []
        last_read = False
        while True:
            page = feed(database, seen[-1] if seen else 0, limit=5)
            seen += [change.seq for change in page]
            if last_read and not page:
                return seen
            last_read = not writing.is_set()

    with ThreadPoolExecutor(writers + 1) as pool:
        reader = pool.submit(read)
        drawn = [seq for seqs in pool.map(write, range(writers)) for seq in seqs]
        writing.clear()
        seen = reader.result(LIMIT)

    assert len(drawn) == writers * writes
    assert seen == sorted(drawn)


def test_removal_during_other_writes_keeps_the_order(database: Database):
    model_id = entries.put(database, "a/old", [1, 1])
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as session:
            vector_feed.remove(session, model_id)
            other = pool.submit(entries.put, database, "a/new", [1, 2])
            time.sleep(0.1)
            assert not other.done()
        new = other.result(LIMIT)
    assert [change.model_id for change in feed(database)] == [model_id, new]


def test_encoding_has_the_model_revision_space_and_vector(database: Database):
    entries.put(database, "a/b", [3, 4])
    with database.transaction() as session:
        stored = vectors.get_encoding(session, "a/b", features=(FEATURE,))
    assert (stored.model.repo_id, stored.revision.sha, stored.space.key) == ("a/b", entries.sha("one"), SPACE.key)
    assert (stored.vector.tolist(), stored.norm, stored.no_shift) == ([3, 4], 5, False)


def test_newest_vector_is_from_the_serving_space(database: Database):
    newer = dataclasses.replace(SPACE, encoder_version="2")
    entries.put(database, "a/b", [1, 0], space=SPACE)
    entries.put(database, "a/b", [0, 1], space=newer)
    with database.transaction() as session:
        assert vectors.get_encoding(session, "a/b", features=(FEATURE,)).space.key == SPACE.key
        assert vectors.get_encoding(session, "a/b", features=(FEATURE,), space_key=newer.key).vector.tolist() == [0, 1]


def test_model_in_no_serving_space_is_read_from_another_space(database: Database):
    newer = dataclasses.replace(SPACE, encoder_version="2")
    entries.put(database, "a/b", [1, 0], space=SPACE)
    entries.put(database, "a/new", [0, 1], space=newer)
    with database.transaction() as session:
        assert vectors.get_encoding(session, "a/new", features=(FEATURE,)).space.key == newer.key


def test_vectors_of_other_features_are_ignored(database: Database):
    entries.put(database, "a/b", [1, 0], space=dataclasses.replace(SPACE, feature="delta_logits"))
    with pytest.raises(NotIndexed, match="delta_activations"), database.transaction() as session:
        vectors.get_encoding(session, "a/b", features=(FEATURE,))


def test_unknown_model_raises_model_not_found(database: Database):
    with pytest.raises(ModelNotFound), database.transaction() as session:
        vectors.get_encoding(session, "a/b", features=(FEATURE,))


def test_pending_model_raises_not_indexed(database: Database):
    entries.put_model(database, "a/b")
    with pytest.raises(NotIndexed, match="pending"), database.transaction() as session:
        vectors.get_encoding(session, "a/b", features=(FEATURE,))


def test_removed_model_raises_not_indexed(database: Database):
    entries.remove(database, entries.put(database, "a/b", [1, 0]))
    with pytest.raises(NotIndexed), database.transaction() as session:
        vectors.get_encoding(session, "a/b", features=(FEATURE,))


def test_unknown_space_raises_space_not_found(database: Database):
    entries.put(database, "a/b", [1, 0])
    with pytest.raises(SpaceNotFound), database.transaction() as session:
        vectors.get_encoding(session, "a/b", features=(FEATURE,), space_key="0" * 64)


def test_space_without_the_model_raises_not_indexed(database: Database):
    other = dataclasses.replace(SPACE, encoder_version="2")
    entries.put(database, "a/b", [1, 0])
    entries.put(database, "a/c", [1, 0], space=other)
    with pytest.raises(NotIndexed), database.transaction() as session:
        vectors.get_encoding(session, "a/b", features=(FEATURE,), space_key=other.key)


@pytest.mark.parametrize(
    "change", [{"layer": 0}, {"probe_set": "d" * 64}, {"dtype": "bfloat16"}, {"encoder_version": "2"}], ids=str
)
def test_revision_under_another_contract_is_not_embedded(database: Database, change: dict):
    model_id = entries.put(database, "a/b", [1, 0])
    with database.transaction() as session:
        contract = dataclasses.replace(SPACE, base_repo=None, base_sha=None)
        assert vectors.find_embedded_revision(session, model_id, entries.sha("one"), [contract]) is not None
        other = dataclasses.replace(contract, **change)
        assert vectors.find_embedded_revision(session, model_id, entries.sha("one"), [other]) is None


def test_revision_is_embedded_once_all_features_are(database: Database):
    model_id = entries.put(database, "a/b", [1, 0])
    logits = dataclasses.replace(SPACE, feature="delta_logits", encoder_version="1+data")
    contracts = [SPACE, logits]
    with database.transaction() as session:
        assert vectors.find_embedded_revision(session, model_id, entries.sha("one"), contracts) is None
    entries.put(database, "a/b", [1, 0, 0], space=logits)
    with database.transaction() as session:
        assert vectors.find_embedded_revision(session, model_id, entries.sha("one"), contracts) is not None
        assert vectors.find_embedded_revision(session, model_id, entries.sha("two"), contracts) is None


def test_commit_is_indexed_while_it_is_current(database: Database):
    model_id = entries.put(database, "a/b", [1, 0], commit="one")
    entries.put(database, "a/b", [1, 0], commit="two")
    with database.transaction() as session:
        indexed = [vectors.is_indexed(session, model_id, entries.sha(commit)) for commit in ("one", "two", "three")]
    assert indexed == [False, True, False]


def test_encoding_is_of_the_most_preferred_feature_of_the_newest_revision(database: Database):
    other = dataclasses.replace(SPACE, feature="delta_layers")
    entries.put(database, "a/b", [1, 0])
    entries.put(database, "a/b", [0, 1, 2], space=other)
    with database.transaction() as session:
        assert vectors.get_encoding(session, "a/b").space.key == other.key
    entries.put(database, "a/b", [0, 1], commit="two")
    with database.transaction() as session:
        assert vectors.get_encoding(session, "a/b").vector.tolist() == [0, 1]
