from __future__ import annotations

import math

import numpy as np
import pytest

from catalog.search.confidence import noise_similarity


def test_large_norm_leaves_only_chance():
    assert noise_similarity(1e-6, 10.0, 100_000, 4_096) == pytest.approx(0.075, abs=0.001)


def test_norm_near_the_noise_floor_explains_every_cosine():
    assert noise_similarity(1.0, 1.01, 1_000, 4_096) == 1.0


def test_noise_adds_its_share_of_the_norm():
    chance = noise_similarity(0, 1, 100, 576)
    assert noise_similarity(0.2, 2.0, 100, 576) == pytest.approx(chance + 0.1)


@pytest.mark.parametrize("models", [0, 1])
def test_single_model_is_not_near_by_chance(models: int):
    assert noise_similarity(0, 1, models, 16) == 0


@pytest.mark.parametrize(("models", "dimension"), [(100, 64), (5_000, 64), (5_000, 512)])
def test_bound_is_above_the_nearest_of_unrelated_directions(models: int, dimension: int):
    random = np.random.default_rng(0)
    unrelated = random.standard_normal((models, dimension))
    unrelated /= np.linalg.norm(unrelated, axis=1, keepdims=True)
    queries = random.standard_normal((50, dimension))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    nearest = (queries @ unrelated.T).max(axis=1)
    bound = noise_similarity(0, 1, models, dimension)
    assert np.median(nearest) < bound < 1.35 * np.median(nearest)


def test_noise_changes_a_cosine_by_at_most_the_bound():
    random = np.random.default_rng(0)
    for _ in range(200):
        true, other, noise = random.standard_normal((3, 32))
        true, other, noise = 2 * true, other / np.linalg.norm(other), noise / np.linalg.norm(noise)
        measured = true + noise
        norm = float(np.linalg.norm(measured))
        moved = abs(measured @ other - true @ other) / norm
        assert moved <= noise_similarity(1.0, norm, 1, 32) + 1e-12
        assert not math.isnan(moved)
