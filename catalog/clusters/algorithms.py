"""Clustering algorithms on unit vectors: HDBSCAN, k-means and agglomerative clustering with average linkage."""

from __future__ import annotations

import numpy as np

from catalog.clusters.parameters import Parameters

MAX_EXACT_ROWS = 4_000  # up to here all pairs of rows are compared
GRAPH_NEIGHBORS = 32  # of each row in HDBSCAN's sparse graph, above that
COARSE_CELLS = 2_000  # k-means cells that average linkage merges, above that


def fit_predict(rows: np.ndarray, parameters: Parameters) -> np.ndarray:
    """The cluster of each unit row (n, r): int64 (n,), counting from 0, with -1 for noise.

    `parameters` must be complete (see `Parameters.for_models`).
    """
    if parameters.algorithm == "hdbscan":
        labels = hdbscan(rows, parameters)
    elif parameters.algorithm == "kmeans":
        labels = kmeans(rows, parameters.clusters or 1, parameters.seed)
    else:
        labels = agglomerative(rows, parameters.clusters or 1, parameters.seed)
    return labels.astype(np.int64)


def hdbscan(rows: np.ndarray, parameters: Parameters) -> np.ndarray:
    """HDBSCAN (Campello, Moulavi, Sander 2013) on the Euclidean distance of unit vectors, which grows with the angle.

    Uses all pairs up to `MAX_EXACT_ROWS` rows, and the graph of the `GRAPH_NEIGHBORS` nearest neighbors above.
    """
    from sklearn.cluster import HDBSCAN

    from catalog.vectors.neighbor_graph import neighbor_graph, to_distances

    size, samples = parameters.min_cluster_size or 3, parameters.min_samples or 3
    if len(rows) < max(size, samples):
        return np.full(len(rows), -1)
    estimator = HDBSCAN(min_cluster_size=size, min_samples=samples, metric="precomputed", copy=False)
    if len(rows) <= MAX_EXACT_ROWS:
        distances = to_distances(rows @ rows.T)
        np.fill_diagonal(distances, 0)
        return estimator.fit(distances).labels_
    return estimator.fit(neighbor_graph(rows, max(GRAPH_NEIGHBORS, samples), parameters.seed)).labels_


def kmeans(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """k-means on unit vectors; mini-batch k-means above `MAX_EXACT_ROWS` rows."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    count = min(count, len(rows))
    if len(rows) <= MAX_EXACT_ROWS:
        return KMeans(count, random_state=seed, n_init=10).fit_predict(rows)
    return MiniBatchKMeans(count, random_state=seed, n_init=3, batch_size=4_096).fit_predict(rows)


def agglomerative(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Average linkage on cosine distance; above `MAX_EXACT_ROWS` rows it merges `COARSE_CELLS` k-means cells."""
    from sklearn.cluster import AgglomerativeClustering

    count = min(count, len(rows))
    if count == len(rows):
        return np.arange(count)
    estimator = AgglomerativeClustering(count, metric="cosine", linkage="average")
    if len(rows) <= MAX_EXACT_ROWS:
        return estimator.fit_predict(rows)
    cells = kmeans(rows, COARSE_CELLS, seed)
    used, cells = np.unique(cells, return_inverse=True)
    sums = np.zeros((len(used), rows.shape[1]))
    np.add.at(sums, cells, rows)
    return estimator.fit_predict(sums)[cells]
