"""Matches the clusters of a run to those of the previous run."""

from __future__ import annotations

import numpy as np


def match_to_previous(labels: np.ndarray, previous: np.ndarray, count: int) -> list[int | None]:
    """For each of `count` clusters, the id of the previous cluster that it continues, or None.

    `labels` (m,) and `previous` (m,) describe the models that both runs have: cluster indices of the new run (from 0)
    and cluster ids of the previous run, -1 for noise in both. Clusters are paired so that as many models as possible
    keep their cluster (Hungarian method); a pair counts if it holds more than half of the previous cluster's models.
    """
    from scipy.optimize import linear_sum_assignment

    matches: list[int | None] = [None] * count
    cluster_ids, columns = np.unique(previous, return_inverse=True)
    if not count or not len(cluster_ids):
        return matches
    shared = np.zeros((count, len(cluster_ids)), np.int64)
    np.add.at(shared, (labels[labels >= 0], columns[labels >= 0]), 1)
    totals = np.bincount(columns, minlength=len(cluster_ids))
    shared[:, cluster_ids < 0] = 0
    for cluster, column in zip(*linear_sum_assignment(-shared), strict=True):
        if 2 * shared[cluster, column] > totals[column]:
            matches[cluster] = int(cluster_ids[column])
    return matches
