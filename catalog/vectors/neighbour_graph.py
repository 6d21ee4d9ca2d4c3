"""The graph of nearest neighbours that HDBSCAN is run on where all pairs are too many."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components

CELLS = 12  # nearest cells that are looked through for a row's neighbours
CELL = 400  # rows in a cell, about
DELEGATES = 16  # rows of a component that stand for it
LEAST = 1e-6  # a distance of nothing would be no edge


def graph(rows: np.ndarray, k: int, seed: int) -> csr_matrix:
    """Euclidean distances between unit rows (n, r) and their k nearest, made symmetric and connected: (n, n) sparse.

    Neighbours are looked for in the `CELLS` nearest of some n / `CELL` k-means cells, so a few are missed. What is not
    connected is joined by the shortest way between delegates of the components; these edges are longer than any inside,
    so they decide only how the largest branches of the tree hang together.
    """
    n = len(rows)
    near, distances = nearest(rows, k, seed)  # (n, k), (n, k)
    edges = coo_matrix((distances.ravel(), (np.repeat(np.arange(n), k), near.ravel())), shape=(n, n)).tocsr()
    edges = edges.maximum(edges.T)
    count, component = connected_components(edges, directed=False)
    if count > 1:
        edges = edges.maximum(_bridges(rows, component, count, seed))
    return edges.tocsr()


def nearest(rows: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of each unit row (n, r) but itself: places int64 (n, k) and euclidean distances float64 (n, k)."""
    from sklearn.cluster import MiniBatchKMeans

    n = len(rows)
    cells = max(1, n // CELL)
    found = MiniBatchKMeans(cells, random_state=seed, batch_size=4_096, n_init=1, max_iter=20).fit(rows)
    cell, centres = found.labels_, found.cluster_centers_.astype(np.float32)
    members = np.split(np.argsort(cell, kind="stable"), np.cumsum(np.bincount(cell, minlength=cells))[:-1])
    squares = (centres**2).sum(axis=1)
    places, distances = np.empty((n, k), np.int64), np.empty((n, k))
    for own, centre in zip(members, centres, strict=True):
        if not len(own):
            continue
        order = np.argsort(squares - 2 * (centres @ centre))
        candidates = np.concatenate([members[each] for each in order[:CELLS]])
        more = CELLS
        while len(candidates) <= k:
            candidates = np.concatenate([candidates, members[order[more]]])
            more += 1
        cosines = rows[own] @ rows[candidates].T  # (m, candidates)
        cosines[own[:, None] == candidates[None, :]] = -2  # itself
        best = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        places[own] = candidates[best]
        distances[own] = as_distance(np.take_along_axis(cosines, best, axis=1))
    return places, distances


def as_distance(cosines: np.ndarray) -> np.ndarray:
    """Euclidean distance of unit vectors with these cosines, float64."""
    return np.sqrt(np.maximum(2 - 2 * cosines.astype(np.float64), LEAST**2))


def _bridges(rows: np.ndarray, component: np.ndarray, count: int, seed: int) -> csr_matrix:
    """One edge from each component to each of those before it whose delegates are nearest, so that all are joined."""
    order = np.random.default_rng(seed).permutation(len(rows))
    order = order[np.argsort(component[order], kind="stable")]
    starts = np.searchsorted(component[order], np.arange(count + 1))
    chosen = np.concatenate([order[a : min(b, a + DELEGATES)] for a, b in pairwise(starts)])
    owner = component[chosen]
    froms, tos, lengths = [], [], []
    for each in range(1, count):
        mine, before = chosen[owner == each], chosen[owner < each]
        cosines = rows[mine] @ rows[before].T
        row, column = np.unravel_index(int(cosines.argmax()), cosines.shape)
        froms.append(mine[row])
        tos.append(before[column])
        lengths.append(as_distance(cosines[row, column]))
    bridges = coo_matrix((lengths, (froms, tos)), shape=(len(rows), len(rows))).tocsr()
    return bridges.maximum(bridges.T)
