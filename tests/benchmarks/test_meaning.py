"""The rates of two pools with the same domains, with results that can be verified by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.meaning import GEOMETRIES, Pool, costs, rates, sampled_rates

DOMAINS = ["law", "math", "code"]


def pool(seed: int, each: int, *, swapped: bool = False) -> Pool:
    """`each` models per domain: the axis of the domain plus a direction that all models share."""
    random = np.random.default_rng(seed)
    learned = np.repeat(np.eye(3, 64)[::-1] if swapped else np.eye(3, 64), each, axis=0)
    vectors = learned + 0.01 * random.normal(size=learned.shape) + 5 * random.normal(size=64)
    return Pool(
        list(np.repeat(DOMAINS, each)), vectors, {"delta_activations": 1.0, "delta_layers": 2.0, "delta_meaning": 8.0}
    )


def test_models_of_the_same_domain_find_each_other_across_bases():
    result = rates(pool(1, 1), pool(2, 3), GEOMETRIES["centered"])
    assert (result.gemma, result.smol) == (1, 1)


def test_rate_is_the_share_of_models_that_find_their_domain():
    result = rates(pool(1, 1), pool(2, 3, swapped=True), GEOMETRIES["centered"])  # only math keeps its axis
    assert (result.gemma, result.smol) == (pytest.approx(1 / 3), pytest.approx(1 / 3))


def test_sampled_rates_are_bounded_and_reproducible():
    samples = sampled_rates(pool(1, 1), pool(2, 3), 0.5)
    for mean, low, high in samples.values():
        assert 0 <= low <= mean <= high <= 1
    assert samples == sampled_rates(pool(1, 1), pool(2, 3), 0.5)


def test_costs_are_relative_to_the_other_features():
    assert costs(pool(1, 1)) == {
        "seconds": 8.0,
        "times": {"delta_activations": 8.0, "delta_layers": 4.0},
        "bytes": 256,
    }
