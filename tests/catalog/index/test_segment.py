from __future__ import annotations

import gc

import numpy as np
import pytest

from catalog.index.row_bitmap import RowBitmap
from catalog.index.segment import FlatSegment
from catalog.vectors.numeric import normalize

NO_IDS = np.empty(0, np.int64)
EAST = np.array([1, 0], np.float32)


def segment(*vectors: list[float], first_id: int = 10) -> FlatSegment:
    ids = np.arange(first_id, first_id + len(vectors))
    return FlatSegment(ids, np.array(vectors, dtype=np.float32).reshape(len(vectors), -1), ids * 100)


def without(flat: FlatSegment, *model_ids: int) -> RowBitmap:
    return RowBitmap.all(len(flat)).without(flat.rows_of(np.array(model_ids, np.int64)))


def test_search_returns_nearest_first_with_cosines():
    hits = segment([0, 1], [3, 4], [7, 0]).search(EAST, 3, None)

    assert hits.rows.tolist() == [2, 1, 0]
    np.testing.assert_allclose(hits.cosines, [1, 0.6, 0], atol=1e-6)


def test_excluded_rows_are_replaced_by_the_next_nearest():
    flat = segment([1, 0], [0.9, 0.1], [0, 1])
    assert flat.search(EAST, 2, without(flat, 10)).rows.tolist() == [1, 2]


@pytest.mark.parametrize(("hidden", "expected"), [([], 3), ([10], 2), ([10, 11, 12], 0)])
def test_search_returns_at_most_the_available_rows(hidden: list[int], expected: int):
    flat = segment([1, 0], [0, 1], [1, 1])
    hits = flat.search(EAST, 50, without(flat, *hidden))
    assert len(hits.rows) == len(hits.cosines) == expected


def test_empty_segment_has_no_hits():
    empty = FlatSegment(NO_IDS, np.empty((0, 2), np.float32), NO_IDS)
    assert len(empty) == empty.memory == 0
    assert empty.vectors(NO_IDS).shape == (0, 2)
    assert empty.search(EAST, 5, None).rows.size == 0


def test_rows_of_skips_unknown_models():
    assert segment([1, 0], [0, 1]).rows_of(np.array([11, 99, 10, 0])).tolist() == [1, 0]


def test_rows_of_unsorted_models():
    ids = np.array([7, 3, 9, 1])
    flat = FlatSegment(ids, np.eye(4, dtype=np.float32), ids)
    assert flat.rows_of(np.array([1, 3, 7, 9])).tolist() == [3, 1, 0, 2]


def test_entries_are_normalized_and_outlive_the_segment():
    model_ids, vectors, seqs = segment([3, 4], [1, 0], [0, -2]).entries(np.array([2, 0]))
    gc.collect()
    assert (model_ids.tolist(), seqs.tolist()) == ([12, 10], [1200, 1000])
    np.testing.assert_allclose(vectors, [[0, -1], [0.6, 0.8]], rtol=1e-6)


def test_selector_survives_garbage_collection_during_a_search():
    flat = segment(*np.eye(64).tolist())
    for _ in range(50):
        gc.collect(0)
        hits = flat.search(np.ones(64, np.float32) / 8, 64, RowBitmap.from_mask(np.arange(64) % 2 == 1))
        assert sorted(hits.rows.tolist()) == list(range(1, 64, 2))


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1, 1e30, 1e38])
def test_normalize_handles_tiny_and_huge_vectors(scale: float):
    unit = normalize((np.array([[1, 0], [1, 1]]) * scale).astype(np.float32))
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit, [[1, 0], [0.5**0.5, 0.5**0.5]], rtol=1e-6)


def test_normalize_keeps_zeros():
    assert normalize(np.zeros((2, 3))).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_normalize_does_not_change_its_input():
    vectors = np.array([[3, 4]], dtype=np.float32)
    normalize(vectors)
    assert vectors.tolist() == [[3, 4]]
