"""Density clusters, k-means and average linkage, on cosine geometry."""

from __future__ import annotations

import numpy as np

from catalog.clusters.parameters import Parameters

EXACT = 4_000  # rows up to which every pair is compared
NEIGHBOURS = 32  # of each row, above that
COARSE = 2_000  # k-means cells that average linkage joins, above that


def labels(rows: np.ndarray, parameters: Parameters) -> np.ndarray:
    """The cluster of each unit row (n, r): int64 (n,), from 0 on, -1 for noise. `parameters` leave nothing open."""
    if parameters.algorithm == "hdbscan":
        found = hdbscan(rows, parameters)
    elif parameters.algorithm == "kmeans":
        found = kmeans(rows, parameters.clusters or 1, parameters.seed)
    else:
        found = agglomerative(rows, parameters.clusters or 1, parameters.seed)
    return found.astype(np.int64)


def hdbscan(rows: np.ndarray, parameters: Parameters) -> np.ndarray:
    """HDBSCAN (Campello, Moulavi, Sander 2013) on the euclidean distance of unit vectors, which grows with the angle.

    Up to `EXACT` rows on all pairs; above on the graph of the `NEIGHBOURS` nearest.
    """
    from sklearn.cluster import HDBSCAN

    from catalog.vectors.neighbour_graph import as_distance, graph

    size, samples = parameters.min_cluster_size or 3, parameters.min_samples or 3
    if len(rows) < max(size, samples):
        return np.full(len(rows), -1)
    found = HDBSCAN(min_cluster_size=size, min_samples=samples, metric="precomputed", copy=False)
    if len(rows) <= EXACT:
        distances = as_distance(rows @ rows.T)
        np.fill_diagonal(distances, 0)
        return found.fit(distances).labels_
    return found.fit(graph(rows, max(NEIGHBOURS, samples), parameters.seed)).labels_


def kmeans(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """k-means of unit vectors; above `EXACT` rows in mini-batches."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    count = min(count, len(rows))
    if len(rows) <= EXACT:
        return KMeans(count, random_state=seed, n_init=10).fit_predict(rows)
    return MiniBatchKMeans(count, random_state=seed, n_init=3, batch_size=4_096).fit_predict(rows)


def agglomerative(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Average linkage on cosine distance; above `EXACT` rows of `COARSE` k-means cells in place of the rows."""
    from sklearn.cluster import AgglomerativeClustering

    count = min(count, len(rows))
    if count == len(rows):
        return np.arange(count)
    found = AgglomerativeClustering(count, metric="cosine", linkage="average")
    if len(rows) <= EXACT:
        return found.fit_predict(rows)
    cells = kmeans(rows, COARSE, seed)
    used, cells = np.unique(cells, return_inverse=True)
    sums = np.zeros((len(used), rows.shape[1]))
    np.add.at(sums, cells, rows)
    return found.fit_predict(sums)[cells]
