"""The nearest-neighbor graph that HDBSCAN runs on when there are too many models to compare all pairs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components

CELLS_PROBED = 12  # nearest cells that are searched for a row's neighbors
ROWS_PER_CELL = 400  # on average
REPRESENTATIVES = 16  # rows per component that bridges are searched among
MIN_DISTANCE = 1e-6  # a sparse matrix stores no edge for a distance of 0


def neighbor_graph(rows: np.ndarray, k: int, seed: int) -> csr_matrix:
    """Euclidean distances between unit rows (n, r) and their k nearest, made symmetric and connected: (n, n) sparse.

    Neighbors are searched in the `CELLS_PROBED` nearest of n / `ROWS_PER_CELL` k-means cells, so a few are missed.
    Disconnected components are joined by the shortest edges between their representatives. These are longer than the
    edges within components, so they affect only how the largest branches of the cluster tree are joined.
    """
    n = len(rows)
    neighbors, distances = nearest_neighbors(rows, k, seed)  # (n, k), (n, k)
    edges = coo_matrix((distances.ravel(), (np.repeat(np.arange(n), k), neighbors.ravel())), shape=(n, n)).tocsr()
    edges = edges.maximum(edges.T)
    count, component = connected_components(edges, directed=False)
    if count > 1:
        edges = edges.maximum(_bridges(rows, component, count, seed))
    return edges.tocsr()


def nearest_neighbors(rows: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest others of each unit row (n, r): their rows int64 (n, k) and Euclidean distances float64 (n, k)."""
    from sklearn.cluster import MiniBatchKMeans

    n = len(rows)
    cells = max(1, n // ROWS_PER_CELL)
    kmeans = MiniBatchKMeans(cells, random_state=seed, batch_size=4_096, n_init=1, max_iter=20).fit(rows)
    labels, centers = kmeans.labels_, kmeans.cluster_centers_.astype(np.float32)
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=cells))[:-1])
    squares = (centers**2).sum(axis=1)
    neighbors, distances = np.empty((n, k), np.int64), np.empty((n, k))
    for queries, center in zip(members, centers, strict=True):
        if not len(queries):
            continue
        order = np.argsort(squares - 2 * (centers @ center))
        candidates = np.concatenate([members[cell] for cell in order[:CELLS_PROBED]])
        probed = CELLS_PROBED
        while len(candidates) <= k:
            candidates = np.concatenate([candidates, members[order[probed]]])
            probed += 1
        cosines = rows[queries] @ rows[candidates].T  # (m, candidates)
        cosines[queries[:, None] == candidates[None, :]] = -2  # the row itself
        best = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        neighbors[queries] = candidates[best]
        distances[queries] = to_distances(np.take_along_axis(cosines, best, axis=1))
    return neighbors, distances


def to_distances(cosines: np.ndarray) -> np.ndarray:
    """Euclidean distances of unit vectors with these cosines, float64, at least `MIN_DISTANCE`."""
    return np.sqrt(np.maximum(2 - 2 * cosines.astype(np.float64), MIN_DISTANCE**2))


def _bridges(rows: np.ndarray, component: np.ndarray, count: int, seed: int) -> csr_matrix:
    """One edge from each component to the nearest of the components before it, which connects them all."""
    order = np.random.default_rng(seed).permutation(len(rows))
    order = order[np.argsort(component[order], kind="stable")]
    starts = np.searchsorted(component[order], np.arange(count + 1))
    representatives = np.concatenate([order[a : min(b, a + REPRESENTATIVES)] for a, b in pairwise(starts)])
    representative_of = component[representatives]
    sources, targets, lengths = [], [], []
    for number in range(1, count):
        current, before = representatives[representative_of == number], representatives[representative_of < number]
        cosines = rows[current] @ rows[before].T
        row, column = np.unravel_index(int(cosines.argmax()), cosines.shape)
        sources.append(current[row])
        targets.append(before[column])
        lengths.append(to_distances(cosines[row, column]))
    bridges = coo_matrix((lengths, (sources, targets)), shape=(len(rows), len(rows))).tocsr()
    return bridges.maximum(bridges.T)
