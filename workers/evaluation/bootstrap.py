"""Bootstrap confidence intervals: models are resampled within their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from workers.evaluation.measures import Floats, Ints

RESAMPLES = 1000
COVERAGE = 0.95


def resample_weights(labels: Ints, count: int = RESAMPLES, seed: int = 0) -> Iterator[Floats]:
    """Yield, for each of `count` resamples, how often each model was drawn, (n,).

    Each label keeps its number of models: they are drawn with replacement from the models of that label. A draw that
    contains only one distinct model is repeated, because that model would have no other model of its label to be near.
    """
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(count):
        weights = np.zeros(len(labels))
        for indices in members:
            np.add.at(weights, _draw(indices, generator), 1.0)
        yield weights


def bootstrap_interval(
    statistic: Callable[[Floats], float], labels: Ints, count: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """The 95% percentile interval of a statistic, which is a function of the models' weights, (n,)."""
    values = [statistic(weights) for weights in resample_weights(labels, count, seed)]
    low, high = np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def _draw(indices: Ints, generator: np.random.Generator) -> Ints:
    while True:
        drawn = generator.choice(indices, len(indices))
        if len(indices) == 1 or (drawn != drawn[0]).any():
            return drawn
