"""Dimension reduction for large spaces: projection on the axes that keep most of the vectors' energy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from catalog.vectors.numeric import normalize

SAMPLE_SIZE = 8_000  # rows that the axes are computed from
BLOCK_ROWS = 4_096  # rows projected at once


@dataclass(frozen=True)
class Reduction:
    """Unit rows float32 (n, r), and the share of the sample's energy (sum of squares) that the r axes keep."""

    rows: np.ndarray
    kept_energy: float


def reduce_dimensions(unit: np.ndarray, dimensions: int, seed: int) -> Reduction:
    """Project unit vectors (n, d) on their leading right singular vectors, and scale them to length 1 again.

    The mean is not subtracted, because that would change the cosines. The axes are those of a seeded sample.
    """
    generator = np.random.default_rng(seed)
    n = len(unit)
    chosen = np.sort(generator.choice(n, min(SAMPLE_SIZE, n), replace=False))
    sample = unit[chosen].astype(np.float32)
    axes = right_singular_vectors(sample, dimensions, seed)  # (r, d)
    kept_energy = float(((sample @ axes.T) ** 2).sum() / (sample**2).sum())
    rows = np.empty((n, len(axes)), np.float32)
    for start in range(0, n, BLOCK_ROWS):
        rows[start : start + BLOCK_ROWS] = unit[start : start + BLOCK_ROWS].astype(np.float32) @ axes.T
    return Reduction(normalize(rows), kept_energy)


def right_singular_vectors(
    sample: np.ndarray, count: int, seed: int, *, oversamples: int = 10, iterations: int = 3
) -> np.ndarray:
    """The leading right singular vectors of a sample (m, d): orthonormal axes (r, d) with r = min(count, m, d).

    The mean is not subtracted, so projections keep inner products. Computed by a randomized singular value
    decomposition (Halko, Martinsson and Tropp 2011, arXiv 0909.4061), which is closer to the exact one with more
    `oversamples` and power `iterations`. Axes of centered vectors: `catalog.geometry.transforms.principal_axes`.
    """
    from sklearn.utils.extmath import randomized_svd  # takes a second to import

    options = {"n_oversamples": oversamples, "n_iter": iterations, "power_iteration_normalizer": "LU"}
    return randomized_svd(sample, min(count, *sample.shape), random_state=seed, **options)[2]
