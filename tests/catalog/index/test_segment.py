from __future__ import annotations

import gc

import numpy as np
import pytest

from catalog.index.row_bitmap import Rows
from catalog.index.segment import FlatSegment
from catalog.vectors.numeric import normalized

NONE = np.empty(0, np.int64)
EAST = np.array([1, 0], np.float32)


def segment(*vectors: list[float], first_id: int = 10) -> FlatSegment:
    ids = np.arange(first_id, first_id + len(vectors))
    return FlatSegment(ids, np.array(vectors, dtype=np.float32).reshape(len(vectors), -1), ids * 100)


def without(found: FlatSegment, *model_ids: int) -> Rows:
    return Rows.all(len(found)).without(found.rows_of(np.array(model_ids, np.int64)))


def test_the_nearest_come_first_with_their_cosines():
    found = segment([0, 1], [3, 4], [7, 0]).search(EAST, 3, None)

    assert found.rows.tolist() == [2, 1, 0]
    np.testing.assert_allclose(found.cosines, [1, 0.6, 0], atol=1e-6)


def test_hidden_rows_are_not_found_and_make_room_for_others():
    found = segment([1, 0], [0.9, 0.1], [0, 1])
    assert found.search(EAST, 2, without(found, 10)).rows.tolist() == [1, 2]


@pytest.mark.parametrize(("hidden", "expected"), [([], 3), ([10], 2), ([10, 11, 12], 0)])
def test_no_more_are_found_than_there_are(hidden: list[int], expected: int):
    found = segment([1, 0], [0, 1], [1, 1])
    result = found.search(EAST, 50, without(found, *hidden))
    assert len(result.rows) == len(result.cosines) == expected


def test_nothing_is_found_in_an_empty_segment():
    empty = FlatSegment(NONE, np.empty((0, 2), np.float32), NONE)
    assert len(empty) == empty.memory == 0
    assert empty.vectors(NONE).shape == (0, 2)
    assert empty.search(EAST, 5, None).rows.size == 0


def test_models_that_are_not_in_it_have_no_row():
    assert segment([1, 0], [0, 1]).rows_of(np.array([11, 99, 10, 0])).tolist() == [1, 0]


def test_models_are_found_in_whatever_order_they_lie():
    ids = np.array([7, 3, 9, 1])
    found = FlatSegment(ids, np.eye(4, dtype=np.float32), ids)
    assert found.rows_of(np.array([1, 3, 7, 9])).tolist() == [3, 1, 0, 2]


def test_rows_that_are_kept_have_length_one_and_outlive_the_segment():
    model_ids, vectors, seqs = segment([3, 4], [1, 0], [0, -2]).kept(np.array([2, 0]))
    gc.collect()
    assert (model_ids.tolist(), seqs.tolist()) == ([12, 10], [1200, 1000])
    np.testing.assert_allclose(vectors, [[0, -1], [0.6, 0.8]], rtol=1e-6)


def test_hidden_rows_stay_hidden_when_python_cleans_up():
    found = segment(*np.eye(64).tolist())
    for _ in range(50):
        gc.collect(0)
        result = found.search(np.ones(64, np.float32) / 8, 64, Rows.where(np.arange(64) % 2 == 1))
        assert sorted(result.rows.tolist()) == list(range(1, 64, 2))


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1, 1e30, 1e38])
def test_length_does_not_matter_however_small_or_great(scale: float):
    unit = normalized(np.array([[1, 0], [1, 1]], dtype=np.float64) * scale)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit, [[1, 0], [0.5**0.5, 0.5**0.5]], rtol=1e-6)


def test_zeros_stay_zeros():
    assert normalized(np.zeros((2, 3))).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_what_goes_in_is_left_as_it_was():
    vectors = np.array([[3, 4]], dtype=np.float32)
    normalized(vectors)
    assert vectors.tolist() == [[3, 4]]
