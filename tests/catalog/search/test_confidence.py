from __future__ import annotations

import math

import numpy as np
import pytest

from catalog.search.confidence import chance_similarity, noise_similarity


def test_large_norm_leaves_only_chance():
    assert noise_similarity(1e-6, 10.0, 0.42) == pytest.approx(0.42, abs=1e-6)


def test_norm_near_the_noise_floor_explains_every_cosine():
    assert noise_similarity(1.0, 1.01, 0.1) == 1.0


def test_noise_adds_its_share_of_the_norm():
    assert noise_similarity(0.2, 2.0, 0.3) == pytest.approx(0.4)


def test_chance_is_small_for_independent_directions():
    assert chance_similarity(100_000, 4_096) == pytest.approx(0.075, abs=0.001)


@pytest.mark.parametrize("models", [0, 1])
def test_single_model_is_not_near_by_chance(models: int):
    assert chance_similarity(models, 16) == 0


@pytest.mark.parametrize(("models", "dimension"), [(100, 64), (5_000, 64), (5_000, 512)])
def test_chance_is_above_the_nearest_of_independent_directions(models: int, dimension: int):
    random = np.random.default_rng(0)
    unrelated = random.standard_normal((models, dimension))
    unrelated /= np.linalg.norm(unrelated, axis=1, keepdims=True)
    queries = random.standard_normal((50, dimension))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    nearest = (queries @ unrelated.T).max(axis=1)
    assert np.median(nearest) < chance_similarity(models, dimension) < 1.35 * np.median(nearest)


def test_noise_changes_a_cosine_by_at_most_the_bound():
    random = np.random.default_rng(0)
    for _ in range(200):
        true, other, noise = random.standard_normal((3, 32))
        true, other, noise = 2 * true, other / np.linalg.norm(other), noise / np.linalg.norm(noise)
        measured = true + noise
        norm = float(np.linalg.norm(measured))
        moved = abs(measured @ other - true @ other) / norm
        assert moved <= noise_similarity(1.0, norm, 0) + 1e-12
        assert not math.isnan(moved)
