"""How good a clustering is, and how like another one."""

from __future__ import annotations

import numpy as np

SAMPLE = 6_000  # models that a silhouette rests on


def sample_by_cluster(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Places of about `size` clustered rows: of each cluster its share, but at least ten, or all where it has fewer."""
    places = np.flatnonzero(labels >= 0)
    if len(places) <= size:
        return places
    order = np.random.default_rng(seed).permutation(places)
    order = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels[places])
    taken = np.minimum(counts, np.maximum(10, np.ceil(counts * size / len(places)).astype(np.int64)))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return np.sort(np.concatenate([order[a : a + m] for a, m in zip(starts, taken, strict=True)]))


def silhouette(unit: np.ndarray, labels: np.ndarray, sizes: np.ndarray) -> float | None:
    """Mean silhouette (Rousseeuw 1987) with the distance clip(1 - cos, 0, 1) of unit rows (n, d) with labels (n,).

    `sizes` (c,) are the clusters' own: where the rows are a sample, each cluster weighs as it does among all. A model
    alone in its cluster counts 0. None for fewer than two clusters.
    """
    present, places = np.unique(labels, return_inverse=True)
    if len(present) < 2:
        return None
    counts = np.bincount(places)
    totals = _sums_of_distances(unit, places, len(present))  # (n, c)
    rows = np.arange(len(unit))
    own = counts[places]
    inside = totals[rows, places] / np.maximum(own - 1, 1)
    means = totals / counts
    means[rows, places] = np.inf
    outside = means.min(axis=1)
    scores = (outside - inside) / np.maximum(np.maximum(inside, outside), np.finfo(float).tiny)
    scores[own == 1] = 0
    by_cluster = np.bincount(places, scores) / counts
    return float(np.average(by_cluster, weights=sizes[present]))


def silhouette_of(unit: np.ndarray, labels: np.ndarray, seed: int) -> float | None:
    """As `silhouette` for any number of rows (n, d) with labels (n,): of all clustered ones, or of a seeded sample."""
    sample = sample_by_cluster(labels, SAMPLE, seed)
    return silhouette(unit[sample], labels[sample], np.bincount(labels[labels >= 0]))


def _sums_of_distances(unit: np.ndarray, places: np.ndarray, count: int, block: int = 1_024) -> np.ndarray:
    """Of each row to all the rows of each cluster, (n, c)."""
    member = np.zeros((len(unit), count), np.float32)
    member[np.arange(len(unit)), places] = 1
    rows = unit.astype(np.float32)
    totals = np.empty((len(unit), count))
    for start in range(0, len(unit), block):
        part = slice(start, start + block)
        distances = np.clip(1 - rows[part] @ rows.T, 0, 1)
        distances[np.arange(len(distances)), start + np.arange(len(distances))] = 0  # a row to itself
        totals[part] = distances @ member
    return totals


def adjusted_rand(table: np.ndarray) -> float:
    """Adjusted Rand index (Hubert and Arabie 1985) from the table (a, b) of how many rows two clusterings put where."""

    def pairs(counts: np.ndarray) -> float:
        counts = counts.astype(np.float64)
        return float((counts * (counts - 1) / 2).sum())

    total = pairs(np.array([table.sum()]))
    rows, columns, both = pairs(table.sum(axis=1)), pairs(table.sum(axis=0)), pairs(table)
    expected = rows * columns / total if total else 0.0
    most = (rows + columns) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


def crossed(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """How many rows two label arrays (n,) put where, int64 (a, b); noise is a group of its own."""
    rows, row = np.unique(mine, return_inverse=True)
    columns, column = np.unique(theirs, return_inverse=True)
    table = np.zeros((len(rows), len(columns)), np.int64)
    np.add.at(table, (row, column), 1)
    return table
