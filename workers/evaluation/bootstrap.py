"""Intervals of figures by resampling models within their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from workers.evaluation.measures import Floats, Ints

RESAMPLES = 1000
COVERAGE = 0.95


def resamples(labels: Ints, count: int = RESAMPLES, seed: int = 0) -> Iterator[Floats]:
    """How often each model was drawn, (n,), in each of `count` resamples.

    Every label is drawn from with replacement as often as it has models, and drawn again where only one model came
    out, for that one would have nothing of its own to be near to.
    """
    generator = np.random.default_rng(seed)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(count):
        weights = np.zeros(len(labels))
        for group in groups:
            np.add.at(weights, _draw(group, generator), 1.0)
        yield weights


def interval(
    figure: Callable[[Floats], float], labels: Ints, count: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """The percentile interval of a figure of weights that covers 95% of the resamples."""
    values = [figure(weights) for weights in resamples(labels, count, seed)]
    low, high = np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def _draw(group: Ints, generator: np.random.Generator) -> Ints:
    while True:
        drawn = generator.choice(group, len(group))
        if len(group) == 1 or (drawn != drawn[0]).any():
            return drawn
