from __future__ import annotations

import numpy as np
import pytest

from catalog.index.columns import NumberColumn, TagColumn, TextColumn, grown


def models(*ids: int) -> np.ndarray:
    return np.array(ids, np.int64)


def true_at(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(mask).tolist()


def test_an_array_grows_by_more_than_is_asked_for_and_keeps_what_it_has():
    array = grown(np.array([1, 2]), 3, -1)
    assert (array[:3].tolist(), len(array) >= 1_000) == ([1, 2, -1], True)
    assert grown(array, 5, 0) is array


def test_texts_are_found_by_any_of_them():
    column = TextColumn()
    column.put(models(1, 2, 5), ["a", "b", None])
    column.put(models(2, 3), ["c", "a"])
    assert true_at(column.any_of(["a"], 6)) == [1, 3]
    assert true_at(column.any_of(["b", "c", "never seen"], 6)) == [2]


def test_numbers_are_compared_and_none_reaches_nothing():
    column = NumberColumn()
    column.put(models(1, 2, 3, 4), [10, 0, None, -5])
    assert true_at(column.at_least(0, 6)) == [1, 2]
    assert true_at(column.at_least(-10, 6)) == [1, 2, 4]
    assert true_at(column.any_of([10, -5], 6)) == [1, 4]


def test_tags_are_found_by_all_of_them():
    column = TagColumn()
    column.put(models(1, 2, 3), [["x", "y"], ["x"], []])
    assert true_at(column.all_of(["x"], 4)) == [1, 2]
    assert true_at(column.all_of(["x", "y"], 4)) == [1]
    assert true_at(column.all_of(["x", "never seen"], 4)) == []


def test_tags_that_were_taken_away_are_gone():
    column = TagColumn()
    column.put(models(1, 2), [["x"], ["x", "y"]])
    column.put(models(2), [["z"]])
    assert true_at(column.all_of(["x"], 3)) == [1]
    assert true_at(column.all_of(["y"], 3)) == []
    assert true_at(column.all_of(["z"], 3)) == [2]


@pytest.mark.parametrize("seed", range(3))
def test_tags_after_many_changes_are_those_given_last(seed: int):
    random, column, truth = np.random.default_rng(seed), TagColumn(), {}
    for _ in range(400):
        ids = random.choice(60, 7, replace=False)
        tags = [random.choice(list("abcdefgh"), random.integers(5), replace=False).tolist() for _ in ids]
        column.put(ids, tags)
        truth |= dict(zip(ids.tolist(), tags, strict=True))
    assert column._pairs < 5_000  # what no longer counts is thrown away
    for tag in "abcdefgh":
        assert true_at(column.all_of([tag], 60)) == sorted(model for model, tags in truth.items() if tag in tags)
