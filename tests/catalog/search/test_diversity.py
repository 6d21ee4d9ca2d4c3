from __future__ import annotations

import numpy as np
import pytest

from catalog.search.diversity import BLOCK, diverse, representatives
from catalog.vectors.numeric import normalized


def unit(*rows: list[float]) -> np.ndarray:
    return normalized(np.array(rows, np.float32))


def slow_representatives(vectors: np.ndarray, least: float, most: int) -> list[int]:
    leaders: list[int] = []
    found: list[int] = []
    for place, vector in enumerate(vectors):
        alike = [leader for leader in leaders if vectors[leader] @ vector >= least]
        if not alike and len(leaders) == most:
            break
        found.append(alike[0] if alike else place)
        if not alike:
            leaders.append(place)
    return found


def test_copies_stand_behind_the_first_of_them():
    vectors = unit([1, 0], [1, 0.01], [0, 1], [1, 0.02], [0.01, 1])
    assert representatives(vectors, 0.99, 9).tolist() == [0, 0, 2, 0, 2]


def test_who_is_alike_to_a_follower_alone_stands_for_itself():
    vectors = unit([1, 0], [1, 0.3], [1, 0.65])
    assert representatives(vectors, 0.94, 9).tolist() == [0, 0, 2]


def test_it_stops_at_the_most_that_are_wanted():
    assert representatives(unit([1, 0], [0, 1], [1, 0], [-1, 0], [1, 0]), 0.9, 2).tolist() == [0, 1, 0]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("most", [3, 40, 1_000])
def test_it_is_the_same_as_going_through_them_one_by_one(seed: int, most: int):
    random = np.random.default_rng(seed)
    vectors = normalized(random.standard_normal((2 * BLOCK + 50, 4)))
    assert representatives(vectors, 0.9, most).tolist() == slow_representatives(vectors, 0.9, most)


def test_nothing_has_no_representatives():
    assert representatives(np.empty((0, 3), np.float32), 0.9, 5).size == 0


def test_without_diversity_the_order_is_that_of_the_cosines():
    vectors = unit([1, 0], [1, 0.1], [1, 0.2], [0, 1])
    assert diverse(vectors[:, 0], vectors, 3, 0).tolist() == [0, 1, 2]


def test_with_diversity_a_copy_waits():
    vectors = unit([1, 0.3], [1, 0.31], [1, -0.4])
    assert diverse(vectors[:, 0], vectors, 3, 0.5).tolist() == [0, 2, 1]


def test_the_formula_is_that_of_the_paper():
    random = np.random.default_rng(0)
    vectors = normalized(random.standard_normal((30, 5)))
    query = normalized(random.standard_normal(5))
    cosines, diversity = vectors @ query, 0.4
    order: list[int] = []
    while len(order) < 10:
        scores = {
            i: (1 - diversity) * cosines[i] - diversity * max((vectors[i] @ vectors[j] for j in order), default=0)
            for i in range(30)
            if i not in order
        }
        order.append(max(scores, key=scores.get))
    assert diverse(cosines, vectors, 10, diversity).tolist() == order


def test_no_more_are_chosen_than_there_are():
    vectors = unit([1, 0], [0, 1])
    assert sorted(diverse(vectors[:, 0], vectors, 9, 1).tolist()) == [0, 1]
