"""Fewer dimensions for large spaces: the directions that hold most of the vectors' length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
    come from a randomized singular value decomposition (Halko, Martinsson, Tropp 2011) of a seeded sample.
    """
    from sklearn.utils.extmath import randomized_svd

    generator = np.random.default_rng(seed)
    n, d = unit.shape
    chosen = np.sort(generator.choice(n, min(SAMPLE, n), replace=False))
    sample = unit[chosen].astype(np.float32)
    directions = randomized_svd(sample, min(dimensions, d, len(sample)), n_iter=3, random_state=seed)[2]  # (r, d)
    kept = float(((sample @ directions.T) ** 2).sum() / (sample**2).sum())
    rows = np.empty((n, len(directions)), np.float32)
    for start in range(0, n, BLOCK):
        rows[start : start + BLOCK] = unit[start : start + BLOCK].astype(np.float32) @ directions.T
    return Reduced(normalised(rows), kept)


def normalised(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, float32; what has no length stays nothing."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32, copy=False)


OVERSAMPLED = 32  # axes more than wanted, so that those wanted are right
POWERS = 2


def principal_axes(sample: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """The `count` orthonormal axes (count, d), the greatest first, that hold most of the energy of vectors (m, d).

    By the randomised subspace iteration of Halko, Martinsson and Tropp 2011 (arXiv 0909.4061, algorithms 4.4 and 5.1).
    The mean is not subtracted: coordinates along the axes are to keep inner products.
    """
    width = min(count + OVERSAMPLED, *sample.shape)
    basis = generator.standard_normal((sample.shape[1], width), dtype=np.float32)
    for _ in range(POWERS):
        basis, _ = np.linalg.qr(sample.T @ (sample @ basis))
    _, _, turned = np.linalg.svd(sample @ basis, full_matrices=False)
    return np.ascontiguousarray((turned @ basis.T)[:count])
