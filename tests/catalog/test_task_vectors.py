from __future__ import annotations

import math

import numpy as np
import pytest

from catalog.geometry import Geometry, centred
from catalog.task_vectors import half_width, halves, likeness, reliability, similarities


def test_halves_come_in_complementary_pairs():
    found = halves(21, 4, seed=1)
    assert [len(each) for each in found] == [10, 11, 10, 11]
    for one, other in (found[:2], found[2:]):
        assert sorted([*one, *other]) == list(range(21))
    assert found[0] != found[2]
    assert halves(21, 4, seed=1) == found
    assert halves(21, 4, seed=2) != found


def test_similarities_are_cosines():
    found = similarities(Geometry(), np.array([[2.0, 0], [0, 3]]), np.array([[1.0, 1], [5, 0], [-1, 0]]))
    np.testing.assert_allclose(found, [[math.sqrt(0.5), 1, -1], [math.sqrt(0.5), 0, 0]], atol=1e-6)


def test_similarities_are_those_of_the_geometry():
    rows = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    geometry = centred(rows / np.linalg.norm(rows, axis=1, keepdims=True), norm_power=1.0)
    [[found]] = similarities(geometry, rows[:1], rows[1:2])
    one, other = geometry.apply(rows[:2])
    assert found == pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other), abs=1e-5)


def test_the_interval_holds_the_true_similarity_as_often_as_it_says():
    """Examples with independent effects: a half's similarity is the mean of its examples' effects."""
    draw = np.random.default_rng(0)
    held = 0
    for seed in range(2_000):
        effects = draw.normal(0.5, 0.2, size=40)
        replicates = np.array([[effects[places].mean()] for places in halves(40, 4, seed)])
        held += bool(abs(effects.mean() - 0.5) <= half_width(replicates)[0])
    assert held / 2_000 == pytest.approx(0.95, abs=0.02)


def test_without_replicates_nothing_is_certain():
    assert half_width(np.array([[0.5, 0.6]])).tolist() == [math.inf, math.inf]


def test_reliability_is_what_another_draw_of_as_many_examples_shows():
    """A task's direction with noise on each example: a half has twice the variance of the whole."""
    draw = np.random.default_rng(0)
    task = np.eye(1, 400)[0]

    def vector(examples: int) -> np.ndarray:
        return task + draw.normal(size=400) * 0.2 / math.sqrt(examples)

    said, true = [], []
    for _ in range(200):
        said.append(reliability(Geometry(), np.stack([vector(10) for _ in range(4)])))
        one, other = vector(20), vector(20)
        true.append(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    assert np.mean(said) == pytest.approx(np.mean(true), abs=0.01)


def test_likeness_takes_the_noise_of_the_examples_out():
    halves_of_one = np.array([[1.0, 0.5], [1.0, -0.5]])
    assert likeness(Geometry(), halves_of_one, 0.6) > 0.6
    assert likeness(Geometry(), np.array([[1.0, 0.0], [1.0, 0.0]]), 0.6) == pytest.approx(0.6)
    assert likeness(Geometry(), np.array([[1.0, 0.0]]), 0.6) == 0.6
