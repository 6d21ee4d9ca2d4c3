from __future__ import annotations

import numpy as np
from scipy.sparse.csgraph import connected_components

from catalog.vectors.neighbor_graph import nearest_neighbors, neighbor_graph
from tests.support.blobs import blobs


def test_nearest_neighbors_have_high_recall():
    unit, _ = blobs(8, 1000, spread=0.2)
    neighbors, distances = nearest_neighbors(unit, 5, seed=0)
    queries = np.arange(0, len(unit), 50)
    cosines = unit[queries] @ unit.T
    cosines[np.arange(len(queries)), queries] = -2
    truth = np.argsort(-cosines, axis=1)[:, :5]
    recall = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(neighbors[queries], truth, strict=True)])
    assert recall > 0.95
    expected = np.linalg.norm(unit[queries, None] - unit[neighbors[queries]], axis=2)
    np.testing.assert_allclose(distances[queries], expected, atol=1e-3)


def test_graph_is_symmetric_and_connected():
    unit, _ = blobs(6, 100, spread=0.01)
    edges = neighbor_graph(unit, 4, seed=0)
    assert connected_components(edges, directed=False)[0] == 1
    assert abs(edges - edges.T).max() == 0


def test_identical_vectors_are_connected():
    unit = np.repeat(np.eye(3, 8, dtype=np.float32), 20, axis=0)
    edges = neighbor_graph(unit, 4, seed=0)
    assert edges.data.min() > 0
