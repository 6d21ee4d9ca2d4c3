"""Quality of a clustering (silhouette), agreement of two clusterings (adjusted Rand index), and how near models of
different clusters are.
"""

from __future__ import annotations

import numpy as np

SILHOUETTE_SAMPLE = 6_000  # models that a silhouette is computed on
UNRELATED_SAMPLE = 512  # models whose nearest model of another cluster is searched
UNRELATED_QUANTILE = 0.9
BLOCK_ROWS = 4_096  # rows that are compared with the sample at a time


def sample_by_cluster(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Indices of about `size` clustered rows, stratified by cluster: at least ten of each, or all if it has fewer."""
    clustered = np.flatnonzero(labels >= 0)
    if len(clustered) <= size:
        return clustered
    order = np.random.default_rng(seed).permutation(clustered)
    order = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels[clustered])
    quotas = np.minimum(counts, np.maximum(10, np.ceil(counts * size / len(clustered)).astype(np.int64)))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return np.sort(np.concatenate([order[start : start + m] for start, m in zip(starts, quotas, strict=True)]))


def silhouette(unit: np.ndarray, labels: np.ndarray, sizes: np.ndarray) -> float | None:
    """Mean silhouette (Rousseeuw 1987) with the distance clip(1 - cos, 0, 1) of unit rows (n, d) with labels (n,).

    `sizes` (c,) are the full sizes of the clusters: if the rows are a sample, each cluster is weighted by its full
    size. The only row of a cluster counts as 0. None for fewer than two clusters.
    """
    present, columns = np.unique(labels, return_inverse=True)
    if len(present) < 2:
        return None
    counts = np.bincount(columns)
    totals = _sums_of_distances(unit, columns, len(present))  # (n, c)
    rows = np.arange(len(unit))
    size = counts[columns]
    inside = totals[rows, columns] / np.maximum(size - 1, 1)
    means = totals / counts
    means[rows, columns] = np.inf
    outside = means.min(axis=1)
    scores = (outside - inside) / np.maximum(np.maximum(inside, outside), np.finfo(float).tiny)
    scores[size == 1] = 0
    by_cluster = np.bincount(columns, scores) / counts
    return float(np.average(by_cluster, weights=sizes[present]))


def sampled_silhouette(unit: np.ndarray, labels: np.ndarray, seed: int) -> float | None:
    """`silhouette` of the clustered rows among (n, d), or of a seeded sample if there are many."""
    sample = sample_by_cluster(labels, SILHOUETTE_SAMPLE, seed)
    return silhouette(unit[sample], labels[sample], np.bincount(labels[labels >= 0]))


def unrelated_similarity(unit: np.ndarray, labels: np.ndarray, seed: int) -> float | None:
    """The cosine that nine of ten models do not exceed to any model of another cluster, from a seeded sample of the
    clustered rows among (n, d), each compared with all of them. None for fewer than two clusters.
    """
    clustered = np.flatnonzero(labels >= 0)
    if len(np.unique(labels[clustered])) < 2:
        return None
    size = min(UNRELATED_SAMPLE, len(clustered))
    sample = np.sort(np.random.default_rng(seed).choice(clustered, size, replace=False))
    rows, greatest = unit[sample].astype(np.float32), np.full(size, -1.0)
    for start in range(0, len(clustered), BLOCK_ROWS):
        block = clustered[start : start + BLOCK_ROWS]
        cosines = rows @ unit[block].astype(np.float32).T  # (size, block)
        cosines[labels[sample][:, None] == labels[block]] = -1
        greatest = np.maximum(greatest, cosines.max(axis=1))
    return float(np.quantile(greatest, UNRELATED_QUANTILE))


def _sums_of_distances(unit: np.ndarray, columns: np.ndarray, count: int, block: int = 1_024) -> np.ndarray:
    """The summed distance of each row to all rows of each cluster, (n, c)."""
    membership = np.zeros((len(unit), count), np.float32)
    membership[np.arange(len(unit)), columns] = 1
    rows = unit.astype(np.float32)
    totals = np.empty((len(unit), count))
    for start in range(0, len(unit), block):
        part = slice(start, start + block)
        distances = np.clip(1 - rows[part] @ rows.T, 0, 1)
        distances[np.arange(len(distances)), start + np.arange(len(distances))] = 0  # a row to itself
        totals[part] = distances @ membership
    return totals


def adjusted_rand(table: np.ndarray) -> float:
    """Adjusted Rand index (Hubert and Arabie 1985) from the contingency table (a, b) of two clusterings."""
    rows, columns = np.nonzero(table)
    return adjusted_rand_of_cells(rows, columns, table[rows, columns])


def adjusted_rand_of_cells(row: np.ndarray, column: np.ndarray, counts: np.ndarray) -> float:
    """Adjusted Rand index from the cells (m,) of a contingency table that are not zero: their rows and columns, each
    numbered from 0, and their counts. Memory is linear in m; the table may be too large to be stored.
    """

    def pairs(counts: np.ndarray) -> float:
        counts = counts.astype(np.float64)
        return float((counts * (counts - 1) / 2).sum())

    total, both = pairs(np.array([counts.sum()])), pairs(counts)
    rows, columns = (pairs(np.bincount(numbers, counts)) for numbers in (row, column))
    expected = rows * columns / total if total else 0.0
    maximum = (rows + columns) / 2
    return 1.0 if maximum == expected else (both - expected) / (maximum - expected)


def contingency_table(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How many rows have each pair of labels, int64 (p, q), for two label arrays (n,). Noise counts as a cluster."""
    rows, row = np.unique(a, return_inverse=True)
    columns, column = np.unique(b, return_inverse=True)
    table = np.zeros((len(rows), len(columns)), np.int64)
    np.add.at(table, (row, column), 1)
    return table
