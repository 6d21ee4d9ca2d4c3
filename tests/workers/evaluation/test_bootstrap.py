from __future__ import annotations

import numpy as np
import pytest

from workers.evaluation import measures
from workers.evaluation.bootstrap import interval, resamples

LABELS = np.repeat([0, 1, 2], [2, 3, 8])


def test_every_label_keeps_its_size_and_two_models():
    for weights in resamples(LABELS, 200):
        for label in range(3):
            own = weights[label == LABELS]
            assert own.sum() == len(own)
            assert (own > 0).sum() >= 2


def test_a_seed_gives_the_same_resamples_again():
    first, again, other = (np.array(list(resamples(LABELS, 20, seed))) for seed in (4, 4, 5))
    assert (first == again).all()
    assert (first != other).any()


def test_the_interval_is_that_of_the_middle_95_percent():
    figures = [float(weights[-1]) for weights in resamples(LABELS, 400)]
    low, high = interval(lambda weights: float(weights[-1]), LABELS, 400)
    assert (low, high) == pytest.approx((np.quantile(figures, 0.025), np.quantile(figures, 0.975)))
    assert low < high


def test_more_models_give_a_narrower_interval():
    def width(size: int) -> float:
        labels = np.repeat([0, 1], size)
        generator = np.random.default_rng(0)
        vectors = np.eye(8)[labels] + 0.5 * generator.normal(size=(2 * size, 8))
        distance = measures.distances(vectors @ vectors.T)
        low, high = interval(lambda weights: measures.silhouette(distance, labels, weights), labels, 200)
        return high - low

    assert width(60) < 0.5 * width(6)
