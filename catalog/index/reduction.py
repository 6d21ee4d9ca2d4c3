"""A few axes that tell neighbours apart as well as all coordinates do."""

from __future__ import annotations

import numpy as np

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
