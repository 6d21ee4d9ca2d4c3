"""Map distortion: the share of each point's true neighbors that are far from it on the map."""

from __future__ import annotations

import numpy as np

TRUE_NEIGHBORS = 10
MAP_NEIGHBORS = 30  # nearest points on the map among which a true neighbor counts as near
BLOCK_ROWS = 8_192  # points compared at a time


def neighbor_counts(n: int) -> tuple[int, int]:
    """For n points, how many true neighbors of each are compared, and with how many nearest points on the map.

    10 and 30 from 61 points on. With fewer points both are smaller, so that the map neighbors are at most half of the
    other points: otherwise a random map would have little distortion.
    """
    other_points = n - 1
    count = min(TRUE_NEIGHBORS, max(1, other_points // 6), max(other_points, 0))
    return count, max(count, min(MAP_NEIGHBORS, other_points // 2))


def distortion(neighbors: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """The share of each point's true neighbors (n, k) that are far from it on the map (n, 2): float32 (n,), 0 to 1.

    A neighbor is far if it is not among the nearest points on the map, whose number `neighbor_counts` returns.
    """
    from scipy.spatial import cKDTree

    n = len(coordinates)
    shares = np.zeros(n, np.float32)
    if n < 2 or not neighbors.shape[1]:
        return shares
    plane = coordinates.astype(np.float64)
    tree = cKDTree(plane)
    map_neighbors = neighbor_counts(n)[1]
    for start in range(0, n, BLOCK_ROWS):
        block = plane[start : start + BLOCK_ROWS]
        radius = tree.query(block, k=[map_neighbors + 1])[0]  # (m, 1); the nearest point is the point itself
        distances = np.linalg.norm(plane[neighbors[start : start + BLOCK_ROWS]] - block[:, None], axis=2)  # (m, k)
        shares[start : start + BLOCK_ROWS] = (distances > radius * (1 + 1e-9)).mean(axis=1)
    return shares
