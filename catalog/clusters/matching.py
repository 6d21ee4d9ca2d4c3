"""Which cluster of a run is which of the run before."""

from __future__ import annotations

import numpy as np


def kept(labels: np.ndarray, before: np.ndarray, count: int) -> list[int | None]:
    """For each of `count` clusters the number of the earlier one that lives on in it, or None.

    `labels` (m,) and `before` (m,) are of the models that both runs have: clusters of now from 0 on, numbers of then,
    -1 for none in both. Clusters are paired so that as many models as possible stay (Hungarian method), and a pair
    counts where more than half of the earlier cluster's models came along.
    """
    from scipy.optimize import linear_sum_assignment

    found: list[int | None] = [None] * count
    numbers, old = np.unique(before, return_inverse=True)
    if not count or not len(numbers):
        return found
    shared = np.zeros((count, len(numbers)), np.int64)
    np.add.at(shared, (labels[labels >= 0], old[labels >= 0]), 1)
    totals = np.bincount(old, minlength=len(numbers))
    shared[:, numbers < 0] = 0
    for cluster, place in zip(*linear_sum_assignment(-shared), strict=True):
        if 2 * shared[cluster, place] > totals[place]:
            found[cluster] = int(numbers[place])
    return found
