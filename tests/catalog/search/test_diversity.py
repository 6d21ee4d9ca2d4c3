from __future__ import annotations

import numpy as np
import pytest

from catalog.search.diversity import BLOCK_ROWS, mmr_order, representatives
from catalog.vectors.numeric import normalize


def unit(*rows: list[float]) -> np.ndarray:
    return normalize(np.array(rows, np.float32))


def slow_representatives(vectors: np.ndarray, min_cosine: float, max_groups: int) -> list[int]:
    leaders: list[int] = []
    result: list[int] = []
    for index, vector in enumerate(vectors):
        near = [leader for leader in leaders if vectors[leader] @ vector >= min_cosine]
        if not near and len(leaders) == max_groups:
            break
        result.append(near[0] if near else index)
        if not near:
            leaders.append(index)
    return result


def test_duplicates_are_represented_by_the_first():
    vectors = unit([1, 0], [1, 0.01], [0, 1], [1, 0.02], [0.01, 1])
    assert representatives(vectors, 0.99, 9).tolist() == [0, 0, 2, 0, 2]


def test_similarity_to_a_non_representative_does_not_group():
    vectors = unit([1, 0], [1, 0.3], [1, 0.65])
    assert representatives(vectors, 0.94, 9).tolist() == [0, 0, 2]


def test_representatives_stop_at_max_groups():
    assert representatives(unit([1, 0], [0, 1], [1, 0], [-1, 0], [1, 0]), 0.9, 2).tolist() == [0, 1, 0]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("max_groups", [3, 40, 1_000])
def test_blockwise_result_matches_the_simple_loop(seed: int, max_groups: int):
    random = np.random.default_rng(seed)
    vectors = normalize(random.standard_normal((2 * BLOCK_ROWS + 50, 4)))
    assert representatives(vectors, 0.9, max_groups).tolist() == slow_representatives(vectors, 0.9, max_groups)


def test_no_vectors_have_no_representatives():
    assert representatives(np.empty((0, 3), np.float32), 0.9, 5).size == 0


def test_mmr_without_diversity_orders_by_cosine():
    vectors = unit([1, 0], [1, 0.1], [1, 0.2], [0, 1])
    assert mmr_order(vectors[:, 0], vectors, 3, 0).tolist() == [0, 1, 2]


def test_mmr_moves_a_duplicate_back():
    vectors = unit([1, 0.3], [1, 0.31], [1, -0.4])
    assert mmr_order(vectors[:, 0], vectors, 3, 0.5).tolist() == [0, 2, 1]


def test_mmr_matches_the_formula_of_the_paper():
    random = np.random.default_rng(0)
    vectors = normalize(random.standard_normal((30, 5)))
    query = normalize(random.standard_normal(5))
    cosines, diversity = vectors @ query, 0.4
    order: list[int] = []
    while len(order) < 10:
        scores = {
            i: (1 - diversity) * cosines[i] - diversity * max((vectors[i] @ vectors[j] for j in order), default=0)
            for i in range(30)
            if i not in order
        }
        order.append(max(scores, key=scores.get))
    assert mmr_order(cosines, vectors, 10, diversity).tolist() == order


def test_mmr_returns_at_most_all_vectors():
    vectors = unit([1, 0], [0, 1])
    assert sorted(mmr_order(vectors[:, 0], vectors, 9, 1).tolist()) == [0, 1]
