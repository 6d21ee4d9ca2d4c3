from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from catalog.errors import InvalidVector, SpaceMismatch
from catalog.index import space_index
from catalog.index.space_index import SpaceIndex
from catalog.vectors.repository.feed import Change
from tests.support.waiting import LIMIT, wait_until

DIMENSION = 16


class Oracle:
    """Answers by brute force, from a dictionary in double precision."""

    def __init__(self) -> None:
        self.vectors: dict[int, np.ndarray] = {}

    def apply(self, changes: list[Change]) -> None:
        for change in changes:
            if change.vector is None:
                self.vectors.pop(change.model_id, None)
            else:
                self.vectors[change.model_id] = change.vector.astype(np.float64)

    def search(self, query: np.ndarray, k: int, exclude: set[int], minimum: float) -> list[tuple[int, float]]:
        def cosine(vector: np.ndarray) -> float:
            return float(query @ vector / np.linalg.norm(query) / np.linalg.norm(vector))

        pairs = [(model_id, cosine(vector)) for model_id, vector in self.vectors.items() if model_id not in exclude]
        return sorted((pair for pair in pairs if pair[1] >= minimum), key=lambda pair: -pair[1])[:k]


def random_changes(random: np.random.Generator, seq: int, count: int, models: int) -> list[Change]:
    """Random additions and replacements, and one removal in five. A model may change more than once."""
    return [
        Change(
            seq + number,
            1,
            int(random.integers(models)),
            None if random.random() < 0.2 else random.standard_normal(DIMENSION).astype(np.float32),
        )
        for number in range(1, count + 1)
    ]


def filled(*vectors: list[float]) -> SpaceIndex:
    """An index of these vectors as models 1, 2, ..."""
    index = SpaceIndex(len(vectors[0]))
    index.apply([Change(n, 1, n, np.array(vector, np.float32)) for n, vector in enumerate(vectors, 1)])
    return index


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("fresh_rows", [8, 1000])
def test_search_matches_brute_force_after_every_change(monkeypatch: pytest.MonkeyPatch, seed: int, fresh_rows: int):
    monkeypatch.setattr(space_index, "FRESH_SEGMENT_BYTES", fresh_rows * 4 * DIMENSION)
    random = np.random.default_rng(seed)
    index, oracle, seq = SpaceIndex(DIMENSION), Oracle(), 0
    for _ in range(40):
        changes = random_changes(random, seq, int(random.integers(1, 30)), models=80)
        index.apply(changes)
        oracle.apply(changes)
        seq = changes[-1].seq
        query = random.standard_normal(DIMENSION)
        k, minimum = int(random.integers(1, 100)), float(random.choice([-1, -0.2, 0, 0.3]))
        exclude = {int(model_id) for model_id in random.integers(80, size=3)}

        hits = index.search(query, k, exclude=exclude, min_similarity=minimum)

        expected = oracle.search(query, k, exclude, minimum)
        assert hits.model_ids.tolist() == [model_id for model_id, _ in expected]
        np.testing.assert_allclose(hits.cosines, [cosine for _, cosine in expected], atol=1e-5)
        assert (hits.covered_seq, len(index)) == (seq, len(oracle.vectors))


def test_search_over_many_segments_matches_brute_force(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(space_index, "FRESH_SEGMENT_BYTES", 500 * 4 * DIMENSION)
    random = np.random.default_rng(0)
    index, oracle, seq = SpaceIndex(DIMENSION), Oracle(), 0
    for _ in range(12):
        changes = random_changes(random, seq, 400, models=3_000)
        index.apply(changes)
        oracle.apply(changes)
        seq = changes[-1].seq
    assert len(index._view.fresh) > 2
    assert len(index) == len(oracle.vectors)

    query = random.standard_normal(DIMENSION)
    expected = oracle.search(query, 10_000, set(), -1)
    hits = index.search(query, 10_000)
    np.testing.assert_allclose(hits.cosines, [cosine for _, cosine in expected], atol=1e-5)
    assert set(hits.model_ids.tolist()) == set(oracle.vectors)


def test_memory_of_removed_rows_is_reclaimed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(space_index, "FRESH_SEGMENT_BYTES", 100 * 4 * 2)
    index, count = SpaceIndex(2), 1_000
    for n in range(1, count + 1):
        index.apply([Change(n, 1, n, np.array([1, n], np.float32))])
    for n in range(2, count + 1):
        index.apply([Change(count + n, 1, n, None)])

    assert index.memory <= 2 * 4 * 2
    assert index.search(np.ones(2), 5).model_ids.tolist() == [1]


def test_hits_return_their_vectors_in_order(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(space_index, "FRESH_SEGMENT_BYTES", 8)
    index = SpaceIndex(2)
    for n, vector in enumerate([[2, 0], [0, 3], [4, 4]], 1):
        index.apply([Change(n, 1, n, np.array(vector, np.float32))])
    hits = index.search(np.array([1, 0.5]), 3)
    assert hits.model_ids.tolist() == [3, 1, 2]
    np.testing.assert_allclose(hits.vectors(), [[0.5**0.5, 0.5**0.5], [1, 0], [0, 1]], rtol=1e-6)


def test_search_returns_only_allowed_models():
    index = filled([1, 0], [1, 0.1], [0, 1], [1, 0.2])
    allowed = np.array([False, False, True, True, False])  # the last entry stands for all greater ids
    assert index.search(np.array([1, 0]), 9, allowed=allowed).model_ids.tolist() == [2, 3]
    assert index.search(np.array([1, 0]), 9, allowed=allowed, exclude=[2]).model_ids.tolist() == [3]


def test_empty_index_has_no_hits():
    hits = SpaceIndex(3).search(np.ones(3), 5)
    assert (hits.model_ids.size, hits.cosines.size, hits.covered_seq) == (0, 0, 0)


def test_k_above_the_number_of_models_returns_all():
    assert filled([1, 0], [0, 1]).search(np.array([1, 0.5]), 1000).model_ids.tolist() == [1, 2]


def test_index_without_remaining_models_has_no_hits():
    index = filled([1, 0], [0, 1])
    index.apply([Change(3, 1, 1, None), Change(4, 1, 2, None)])
    assert len(index) == 0
    assert index.search(np.ones(2), 5).model_ids.size == 0
    assert index.covered_seq == 4


def test_removed_model_can_be_added_again():
    index = filled([1, 0], [0, 1])
    index.apply([Change(3, 1, 1, None), Change(4, 1, 1, np.array([1, 1], np.float32))])
    assert index.search(np.array([1, 1]), 1).model_ids.tolist() == [1]
    assert len(index) == 2


def test_removal_of_an_unknown_model_changes_nothing():
    index = filled([1, 0])
    index.apply([Change(2, 1, 99, None)])
    assert (len(index), index.covered_seq) == (1, 2)


def test_excluded_models_are_replaced_by_the_next_nearest():
    index = filled([1, 0], [1, 0.1], [0, 1])
    assert index.search(np.array([1, 0]), 2, exclude=[1, 1, 77]).model_ids.tolist() == [2, 3]


def test_models_below_min_similarity_are_left_out():
    index = filled([1, 0], [3, 4], [-1, 0])
    assert index.search(np.array([1, 0]), 9, min_similarity=0.5).model_ids.tolist() == [1, 2]
    assert index.search(np.array([1, 0]), 9, min_similarity=-1).model_ids.tolist() == [1, 2, 3]


def test_opposite_vectors_are_found_and_cosines_stay_within_one():
    vectors = np.random.default_rng(0).standard_normal((200, 7)).astype(np.float32)
    for vector in vectors:
        hits = filled(vector.tolist(), (-vector).tolist()).search(vector, 2)
        assert hits.model_ids.tolist() == [1, 2]  # rounding may not put -1 below the smallest similarity
        assert (np.abs(hits.cosines) <= 1).all()


def test_query_length_does_not_change_the_hits():
    index = filled([1, 0], [3, 4], [0, 1])
    reference = index.search(np.array([1, 2]), 3)
    for scale in (1e-40, 1e-20, 1e20, 1e38):
        hits = index.search(np.array([1, 2]) * scale, 3)
        assert hits.model_ids.tolist() == reference.model_ids.tolist()
        np.testing.assert_allclose(hits.cosines, reference.cosines, rtol=1e-5)


@pytest.mark.parametrize("entries", [1, 3, 0])
def test_query_of_another_dimension_raises_space_mismatch(entries: int):
    with pytest.raises(SpaceMismatch, match=f"{entries} entries"):
        filled([1, 0]).search(np.ones(entries), 1)


@pytest.mark.parametrize("vector", [[0, 0], [np.nan, 1], [np.inf, 1], [-np.inf, 1], [1e39, 1], [1e-60, 0]], ids=str)
def test_query_without_a_direction_raises_invalid_vector(vector: list[float]):
    with pytest.raises(InvalidVector):
        filled([1, 0]).search(np.array(vector), 1)


def test_searches_are_consistent_during_changes(monkeypatch: pytest.MonkeyPatch):
    """At change t, model i points along axis (i + t) modulo n. Every answer must be that of a single t."""
    monkeypatch.setattr(space_index, "FRESH_SEGMENT_BYTES", 20 * 4 * 24)  # some changes start a new segment
    count, versions, checkpoints = 24, 150, 5
    axes = np.eye(count, dtype=np.float32)
    index = SpaceIndex(count)
    done = threading.Event()

    def apply(version: int) -> None:
        order = range(count) if version % 2 else range(count - 1, -1, -1)
        changes = [Change(version, 1, model_id, axes[(model_id + version) % count]) for model_id in order]
        index.apply(changes)

    searches = dict.fromkeys((0, 5, 11), 0)

    def search(axis: int) -> None:
        while not done.is_set():
            hits = index.search(axes[axis], count)
            assert hits.model_ids[0] == (axis - hits.covered_seq) % count
            assert hits.cosines.tolist() == [1] + [0] * (count - 1)
            assert sorted(hits.model_ids.tolist()) == list(range(count))
            searches[axis] += 1

    apply(1)
    with ThreadPoolExecutor(3) as pool:
        searchers = [pool.submit(search, axis) for axis in searches]
        try:
            for version in range(2, versions):
                apply(version)
                if version % (versions // checkpoints) == 0:  # wait until every thread has searched again
                    before = dict(searches)
                    wait_until(
                        lambda before=before: (
                            any(searcher.done() for searcher in searchers)
                            or all(searches[axis] > before[axis] for axis in searches)
                        ),
                        "every thread has searched",
                    )
        finally:
            done.set()
        for searcher in searchers:
            searcher.result(LIMIT)
    assert min(searches.values()) >= checkpoints - 1
