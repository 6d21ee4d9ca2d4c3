"""How certain the similarity of a task to a model is, estimated from halves of the task's examples."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import t as student

from catalog.geometry.transforms import Geometry
from catalog.vectors.numeric import normalize

HALVES = 4  # two complementary pairs
CONFIDENCE = 0.95


def balanced_half_samples(count: int, seed: int, halves: int = HALVES) -> list[list[int]]:
    """The indices of the examples that each adapter is trained on: first all of them, then random splits into pairs of
    complementary halves.
    """
    rng = np.random.default_rng(seed)
    samples = [list(range(count))]
    for _ in range(halves // 2):
        order = rng.permutation(count)
        samples += [sorted(order[: count // 2].tolist()), sorted(order[count // 2 :].tolist())]
    return samples


def similarities(geometry: Geometry, queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Cosines (m, n) of queries (m, d) and vectors (n, d) in a geometry."""
    queries, vectors = (normalize(geometry.apply(normalize(rows))) for rows in (queries, vectors))
    return queries @ vectors.T


def confidence_half_width(cosines: np.ndarray) -> np.ndarray:
    """Half the width (n,) of the interval at `CONFIDENCE` around the similarities to a task, from those (h, n) of its
    halves. It is infinite if there is no pair of halves.

    Half the difference of two complementary halves varies as the whole sample does (balanced half-samples: Wolter 2007,
    Introduction to Variance Estimation, chapter 3), with one degree of freedom per pair for Student's t.
    """
    pairs = len(cosines) // 2
    if not pairs:
        return np.full(cosines.shape[1], math.inf)
    differences = (cosines[0 : 2 * pairs : 2] - cosines[1 : 2 * pairs : 2]) / 2  # (pairs, n)
    return student.ppf((1 + CONFIDENCE) / 2, pairs) * np.sqrt((differences**2).mean(axis=0))
