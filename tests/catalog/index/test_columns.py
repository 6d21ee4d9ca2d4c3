from __future__ import annotations

import numpy as np
import pytest

from catalog.index.columns import ClusterColumn, NumberColumn, TagColumn, TextColumn, grow


def ids(*model_ids: int) -> np.ndarray:
    return np.array(model_ids, np.int64)


def true_at(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(mask).tolist()


def test_grow_over_allocates_and_keeps_values():
    array = grow(np.array([1, 2]), 3, -1)
    assert (array[:3].tolist(), len(array) >= 1_000) == ([1, 2, -1], True)
    assert grow(array, 5, 0) is array


def test_text_column_matches_any_of_the_texts():
    column = TextColumn()
    column.set(ids(1, 2, 5), ["a", "b", None])
    column.set(ids(2, 3), ["c", "a"])
    assert true_at(column.any_of(["a"], 6)) == [1, 3]
    assert true_at(column.any_of(["b", "c", "never seen"], 6)) == [2]


def test_missing_numbers_reach_no_minimum():
    column = NumberColumn()
    column.set(ids(1, 2, 3, 4), [10, 0, None, -5])
    assert true_at(column.at_least(0, 6)) == [1, 2]
    assert true_at(column.at_least(-10, 6)) == [1, 2, 4]


def test_cluster_column_shows_one_run_in_place_of_another():
    column = ClusterColumn()
    column.show(1, ids(1, 2, 3), ids(7, 7, 8))
    column.set(ids(4, 2), [1, None], [8, None])
    assert true_at(column.any_of([7], 9)) == [1]
    assert true_at(column.any_of([7, 8], 9)) == [1, 3, 4]
    column.show(2, ids(20), ids(9))
    column.hide(1)
    column.show(3, ids(2, 5), ids(7, 7))
    assert true_at(column.any_of([7, 8], 9)) == [2, 5]
    assert true_at(column.any_of([9], 21)) == [20]


def test_tag_column_matches_all_of_the_tags():
    column = TagColumn()
    column.set(ids(1, 2, 3), [["x", "y"], ["x"], []])
    assert true_at(column.all_of(["x"], 4)) == [1, 2]
    assert true_at(column.all_of(["x", "y"], 4)) == [1]
    assert true_at(column.all_of(["x", "never seen"], 4)) == []


def test_setting_tags_replaces_the_previous_ones():
    column = TagColumn()
    column.set(ids(1, 2), [["x"], ["x", "y"]])
    column.set(ids(2), [["z"]])
    assert true_at(column.all_of(["x"], 3)) == [1]
    assert true_at(column.all_of(["y"], 3)) == []
    assert true_at(column.all_of(["z"], 3)) == [2]


@pytest.mark.parametrize("seed", range(3))
def test_tags_after_many_changes_are_the_last_ones_set(seed: int):
    random, column, truth = np.random.default_rng(seed), TagColumn(), {}
    for _ in range(400):
        model_ids = random.choice(60, 7, replace=False)
        tags = [random.choice(list("abcdefgh"), random.integers(5), replace=False).tolist() for _ in model_ids]
        column.set(model_ids, tags)
        truth |= dict(zip(model_ids.tolist(), tags, strict=True))
    assert column._pairs < 5_000  # dead pairs are removed
    for tag in "abcdefgh":
        assert true_at(column.all_of([tag], 60)) == sorted(model for model, tags in truth.items() if tag in tags)
