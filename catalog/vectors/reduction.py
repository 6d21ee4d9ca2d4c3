"""Fewer dimensions for large spaces: the directions that hold most of the vectors' length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from catalog.vectors.numeric import unit_rows

SAMPLE = 8_000  # rows that the directions are found from
BLOCK = 4_096  # rows projected at once


@dataclass(frozen=True)
class Reduced:
    """Unit rows float32 (n, r), and the share of the sample's squared length that the r directions keep."""

    rows: np.ndarray
    kept: float


def reduce(unit: np.ndarray, dimensions: int, seed: int) -> Reduced:
    """Unit vectors (n, d) on their leading right singular vectors, scaled to length 1 again.

    The mean is not taken out: cosines are what is to be kept, and they are not those of centred vectors. The directions
    are those of a seeded sample.
    """
    generator = np.random.default_rng(seed)
    n = len(unit)
    chosen = np.sort(generator.choice(n, min(SAMPLE, n), replace=False))
    sample = unit[chosen].astype(np.float32)
    directions = principal_axes(sample, dimensions, seed)  # (r, d)
    kept = float(((sample @ directions.T) ** 2).sum() / (sample**2).sum())
    rows = np.empty((n, len(directions)), np.float32)
    for start in range(0, n, BLOCK):
        rows[start : start + BLOCK] = unit[start : start + BLOCK].astype(np.float32) @ directions.T
    return Reduced(unit_rows(rows), kept)


def principal_axes(
    sample: np.ndarray, count: int, seed: int, *, oversampled: int = 10, iterations: int = 3
) -> np.ndarray:
    """The `count` orthonormal axes (count, d), the greatest first, that hold most of the energy of vectors (m, d); as
    many as there are, where these are fewer. The mean is not subtracted: coordinates are to keep inner products.

    By a randomized singular value decomposition (Halko, Martinsson and Tropp 2011, arXiv 0909.4061) with so many axes
    more than wanted, and so many power iterations: the more of both, the nearer to the exact one.
    """
    from sklearn.utils.extmath import randomized_svd  # takes a second to import

    settings = {"n_oversamples": oversampled, "n_iter": iterations, "power_iteration_normalizer": "LU"}
    return randomized_svd(sample, min(count, *sample.shape), random_state=seed, **settings)[2]
