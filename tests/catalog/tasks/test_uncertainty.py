from __future__ import annotations

import math

import numpy as np
import pytest

from catalog.geometry.transforms import Geometry, centred
from catalog.tasks.uncertainty import half_width, parts, similarities


def test_all_examples_come_first_then_complementary_halves():
    whole, *halves = parts(21, seed=1)
    assert whole == list(range(21))
    assert [len(each) for each in halves] == [10, 11, 10, 11]
    for one, other in (halves[:2], halves[2:]):
        assert sorted([*one, *other]) == whole
    assert halves[0] != halves[2]
    assert parts(21, seed=1) == [whole, *halves]
    assert parts(21, seed=2) != [whole, *halves]


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
        halves = np.array([[effects[places].mean()] for places in parts(40, seed)[1:]])
        held += bool(abs(effects.mean() - 0.5) <= half_width(halves)[0])
    assert held / 2_000 == pytest.approx(0.95, abs=0.02)


def test_without_halves_nothing_is_certain():
    assert half_width(np.array([[0.5, 0.6]])).tolist() == [math.inf, math.inf]
