from __future__ import annotations

import numpy as np
import pytest

from catalog.selections.strategies import Arm, Candidates, propose

# the first two alike, the third another way, the fourth far from the task
VECTORS = np.array([[1, 0, 0], [0.999, 0.0447, 0], [0.3, 0, 0.954], [0, 1, 0]], np.float32)
CANDIDATES = Candidates(np.array([7, 3, 9, 1]), np.array([0.9, 0.89, 0.7, 0.1], np.float32), VECTORS)


def test_nearest_are_the_first():
    assert propose(Arm.NEAREST, CANDIDATES, 2, 0) == [7, 3]


def test_diverse_begins_with_the_nearest_and_passes_over_its_double():
    assert propose(Arm.DIVERSE, CANDIDATES, 2, 0) == [7, 9]


def test_anchored_is_the_nearest_and_others_by_the_seed():
    drawn = {tuple(propose(Arm.ANCHORED, CANDIDATES, 2, seed)) for seed in range(20)}
    assert drawn == {(7, 1), (7, 3), (7, 9)}


def test_random_does_not_depend_on_who_is_near():
    turned = Candidates(CANDIDATES.ids[::-1], CANDIDATES.cosines, VECTORS[::-1])
    drawn = [propose(Arm.RANDOM, CANDIDATES, 2, seed) for seed in range(20)]
    assert drawn == [propose(Arm.RANDOM, turned, 2, seed) for seed in range(20)]
    assert len({tuple(each) for each in drawn}) > 5
    assert all(len(set(each)) == 2 for each in drawn)


@pytest.mark.parametrize("arm", list(Arm))
def test_where_there_are_too_few_all_are_proposed(arm: Arm):
    assert sorted(propose(arm, CANDIDATES, 9, 0)) == [1, 3, 7, 9]


def test_what_cannot_be_had_is_taken_out():
    left = CANDIDATES.without([7, 1])
    assert (left.ids.tolist(), len(left)) == ([3, 9], 2)
    np.testing.assert_array_equal(left.near, VECTORS[[1, 2]])
