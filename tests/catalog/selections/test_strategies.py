from __future__ import annotations

import numpy as np
import pytest

from catalog.selections.strategies import STRATEGIES, Candidates, Strategy, diverse, nearest

# the first two alike, the third in another direction, the fourth far from the task
VECTORS = np.array([[1, 0, 0], [0.999, 0.0447, 0], [0.3, 0, 0.954], [0, 1, 0]], np.float32)
CANDIDATES = Candidates(np.array([7, 3, 9, 1]), np.array([0.9, 0.89, 0.7, 0.1], np.float32), VECTORS)


def test_nearest_selects_the_first_candidates():
    assert nearest(CANDIDATES, 2).tolist() == [7, 3]


def test_diverse_begins_with_the_nearest_and_skips_its_duplicate():
    assert diverse(CANDIDATES, 2).tolist() == [7, 9]


def test_diverse_selects_within_the_pool():
    small_pool = Candidates(CANDIDATES.ids, CANDIDATES.cosines, VECTORS[:2])
    assert diverse(small_pool, 3).tolist() == [7, 3]


@pytest.mark.parametrize("strategy", list(Strategy))
def test_too_few_candidates_are_all_selected(strategy: Strategy):
    assert sorted(STRATEGIES[strategy](CANDIDATES, 9).tolist()) == [1, 3, 7, 9]


def test_candidates_can_be_excluded():
    left = CANDIDATES.without([7, 1])
    assert (left.ids.tolist(), len(left)) == ([3, 9], 2)
    np.testing.assert_array_equal(left.pool, VECTORS[[1, 2]])
