from __future__ import annotations

import numpy as np
import pytest

from workers.evaluation import measures
from workers.evaluation.bootstrap import bootstrap_interval, resample_weights

LABELS = np.repeat([0, 1, 2], [2, 3, 8])


def test_resamples_keep_the_size_of_each_label_and_two_distinct_models():
    for weights in resample_weights(LABELS, 200):
        for label in range(3):
            counts = weights[label == LABELS]
            assert counts.sum() == len(counts)
            assert (counts > 0).sum() >= 2


def test_resamples_are_reproducible_by_seed():
    first, again, other = (np.array(list(resample_weights(LABELS, 20, seed))) for seed in (4, 4, 5))
    assert (first == again).all()
    assert (first != other).any()


def test_interval_covers_the_middle_95_percent():
    values = [float(weights[-1]) for weights in resample_weights(LABELS, 400)]
    low, high = bootstrap_interval(lambda weights: float(weights[-1]), LABELS, 400)
    assert (low, high) == pytest.approx((np.quantile(values, 0.025), np.quantile(values, 0.975)))
    assert low < high


def test_interval_narrows_with_more_models():
    def width(size: int) -> float:
        labels = np.repeat([0, 1], size)
        generator = np.random.default_rng(0)
        vectors = np.eye(8)[labels] + 0.5 * generator.normal(size=(2 * size, 8))
        distance = measures.distances(vectors @ vectors.T)
        low, high = bootstrap_interval(lambda weights: measures.silhouette(distance, labels, weights), labels, 200)
        return high - low

    assert width(60) < 0.5 * width(6)
