"""What the replicates of a task say: its vector, and how certain its likeness to a model is."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import t as student

from catalog.geometry import Geometry

REPLICATES = 4  # two pairs of complementary halves
CONFIDENCE = 0.95
TINY = 1e-12


def halves(count: int, replicates: int, seed: int) -> list[list[int]]:
    """Places of the examples that each replicate is trained on: pairs of complementary halves, of random splits."""
    draw = np.random.default_rng(seed)
    found: list[list[int]] = []
    while len(found) < replicates:
        order = draw.permutation(count)
        found += [sorted(order[: count // 2].tolist()), sorted(order[count // 2 :].tolist())]
    return found[:replicates]


def similarities(geometry: Geometry, replicates: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Cosines (R, n) of replicates (R, d) and vectors (n, d), in a geometry."""
    ours, theirs = (_unit(geometry.apply(_unit(each))) for each in (replicates, vectors))
    return ours @ theirs.T


def half_width(cosines: np.ndarray) -> np.ndarray:
    """Half the width (n,) of the interval at `CONFIDENCE` around the similarities to a task, from those (R, n) of its
    replicates; infinite where there are no two halves.

    Half the difference of two complementary halves deviates as the whole does (balanced half-samples: Wolter 2007,
    Introduction to Variance Estimation, chapter 3), with one degree of freedom a pair for Student's t.
    """
    pairs = len(cosines) // 2
    if not pairs:
        return np.full(cosines.shape[1], math.inf)
    differences = (cosines[0 : 2 * pairs : 2] - cosines[1 : 2 * pairs : 2]) / 2  # (pairs, n)
    return student.ppf((1 + CONFIDENCE) / 2, pairs) * np.sqrt((differences**2).mean(axis=0))


def reliability(geometry: Geometry, replicates: np.ndarray) -> float:
    """In a geometry, what the cosine of a task's vector to that of another draw of as many examples is expected to be.

    From the mean cosine r of complementary halves by the formula of Spearman and Brown (1910), 2 r / (1 + r); 1 where
    there are no two halves.
    """
    pairs = len(replicates) // 2
    if not pairs:
        return 1.0
    units = _unit(geometry.apply(_unit(replicates[: 2 * pairs])))
    r = max(float((units[0::2] * units[1::2]).sum(axis=1).mean()), TINY)
    return 2 * r / (1 + r)


def likeness(geometry: Geometry, replicates: np.ndarray, similarity: float) -> float:
    """A similarity to a task less what its own noise takes from it: divided by the root of the task's reliability
    (Spearman 1904, attenuation).
    """
    return similarity / math.sqrt(reliability(geometry, replicates))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), TINY)
