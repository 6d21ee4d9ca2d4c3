from __future__ import annotations

import math

import numpy as np
import pytest

from catalog.geometry.transforms import Geometry, centered
from catalog.tasks.uncertainty import balanced_half_samples, confidence_half_width, similarities


def test_samples_are_all_examples_then_complementary_halves():
    full, *halves = balanced_half_samples(21, seed=1)
    assert full == list(range(21))
    assert [len(half) for half in halves] == [10, 11, 10, 11]
    for one, other in (halves[:2], halves[2:]):
        assert sorted([*one, *other]) == full
    assert halves[0] != halves[2]
    assert balanced_half_samples(21, seed=1) == [full, *halves]
    assert balanced_half_samples(21, seed=2) != [full, *halves]


def test_similarities_are_cosines():
    cosines = similarities(Geometry(), np.array([[2.0, 0], [0, 3]]), np.array([[1.0, 1], [5, 0], [-1, 0]]))
    np.testing.assert_allclose(cosines, [[math.sqrt(0.5), 1, -1], [math.sqrt(0.5), 0, 0]], atol=1e-6)


def test_similarities_are_cosines_in_the_geometry():
    rows = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    geometry = centered(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    [[cosine]] = similarities(geometry, rows[:1], rows[1:2])
    one, other = geometry.apply(rows[:2])
    assert cosine == pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other), abs=1e-5)


def test_interval_covers_the_true_similarity_as_often_as_its_level():
    """Examples with independent effects: a half's similarity is the mean of its examples' effects."""
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(2_000):
        effects = rng.normal(0.5, 0.2, size=40)
        halves = np.array([[effects[indices].mean()] for indices in balanced_half_samples(40, seed)[1:]])
        covered += bool(abs(effects.mean() - 0.5) <= confidence_half_width(halves)[0])
    assert covered / 2_000 == pytest.approx(0.95, abs=0.02)


def test_interval_without_halves_is_infinite():
    assert confidence_half_width(np.array([[0.5, 0.6]])).tolist() == [math.inf, math.inf]
