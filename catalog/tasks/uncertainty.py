"""What the adapters of a task say: where it is, and how certain its similarity to a model is."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import t as student

from catalog.geometry.transforms import Geometry
from catalog.vectors.numeric import unit_rows

HALVES = 4  # two pairs of complementary ones
CONFIDENCE = 0.95


def parts(count: int, seed: int, halves: int = HALVES) -> list[list[int]]:
    """Places of the examples that each adapter is trained on: first all of them, then pairs of complementary halves, of
    random splits.
    """
    draw = np.random.default_rng(seed)
    found = [list(range(count))]
    for _ in range(halves // 2):
        order = draw.permutation(count)
        found += [sorted(order[: count // 2].tolist()), sorted(order[count // 2 :].tolist())]
    return found


def similarities(geometry: Geometry, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Cosines (m, n) of vectors (m, d) and (n, d), in a geometry."""
    ours, theirs = (unit_rows(geometry.apply(unit_rows(each))) for each in (ours, theirs))
    return ours @ theirs.T


def half_width(cosines: np.ndarray) -> np.ndarray:
    """Half the width (n,) of the interval at `CONFIDENCE` around the similarities to a task, from those (h, n) of its
    halves; infinite where there are no two.

    Half the difference of two complementary halves deviates as the whole does (balanced half-samples: Wolter 2007,
    Introduction to Variance Estimation, chapter 3), with one degree of freedom a pair for Student's t.
    """
    pairs = len(cosines) // 2
    if not pairs:
        return np.full(cosines.shape[1], math.inf)
    differences = (cosines[0 : 2 * pairs : 2] - cosines[1 : 2 * pairs : 2]) / 2  # (pairs, n)
    return student.ppf((1 + CONFIDENCE) / 2, pairs) * np.sqrt((differences**2).mean(axis=0))
