from __future__ import annotations

import numpy as np
from scipy.sparse.csgraph import connected_components

from catalog.vectors.neighbour_graph import graph, nearest
from tests.support.blobs import blobs


def test_nearly_all_nearest_neighbours_are_found():
    unit, _ = blobs(8, 1000, spread=0.2)
    found, distances = nearest(unit, 5, seed=0)
    asked = np.arange(0, len(unit), 50)
    cosines = unit[asked] @ unit.T
    cosines[np.arange(len(asked)), asked] = -2
    truth = np.argsort(-cosines, axis=1)[:, :5]
    recall = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found[asked], truth, strict=True)])
    assert recall > 0.95
    expected = np.linalg.norm(unit[asked, None] - unit[found[asked]], axis=2)
    np.testing.assert_allclose(distances[asked], expected, atol=1e-3)


def test_the_graph_is_symmetric_and_in_one_piece():
    unit, _ = blobs(6, 100, spread=0.01)
    edges = graph(unit, 4, seed=0)
    assert connected_components(edges, directed=False)[0] == 1
    assert abs(edges - edges.T).max() == 0


def test_models_that_are_alike_to_the_last_bit_are_still_neighbours():
    unit = np.repeat(np.eye(3, 8, dtype=np.float32), 20, axis=0)
    edges = graph(unit, 4, seed=0)
    assert edges.data.min() > 0
