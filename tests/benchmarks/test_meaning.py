"""The rates of two pools that learned the same, with answers that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.meaning import GEOMETRIES, Pool, costs, drawn, rates

DOMAINS = ["law", "math", "code"]


def pool(seed: int, each: int, *, swapped: bool = False) -> Pool:
    """Models of a base, `each` a domain: nearly its axis, beside a direction that they all share."""
    random = np.random.default_rng(seed)
    learned = np.repeat(np.eye(3, 64)[::-1] if swapped else np.eye(3, 64), each, axis=0)
    vectors = learned + 0.01 * random.normal(size=learned.shape) + 5 * random.normal(size=64)
    return Pool(
        list(np.repeat(DOMAINS, each)), vectors, {"delta_activations": 1.0, "delta_layers": 2.0, "delta_meaning": 8.0}
    )


def test_models_that_learned_the_same_find_each_other_as_they_stand_in_their_bases():
    found = rates(pool(1, 1), pool(2, 3), GEOMETRIES["centred"])
    assert (found.there, found.back) == (1, 1)


def test_a_rate_is_the_share_that_finds_its_own_domain():
    found = rates(pool(1, 1), pool(2, 3, swapped=True), GEOMETRIES["centred"])  # math alone stays where it was
    assert (found.there, found.back) == (pytest.approx(1 / 3), pytest.approx(1 / 3))


def test_a_part_of_the_continuations_is_drawn_again_and_again():
    found = drawn(pool(1, 1), pool(2, 3), 0.5)
    for mean, low, high in found.values():
        assert 0 <= low <= mean <= high <= 1
    assert found == drawn(pool(1, 1), pool(2, 3), 0.5)


def test_a_cost_is_told_beside_the_other_features():
    assert costs(pool(1, 1)) == {
        "seconds": 8.0,
        "times": {"delta_activations": 8.0, "delta_layers": 4.0},
        "bytes": 256,
    }
