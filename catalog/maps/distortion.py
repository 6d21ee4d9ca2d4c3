"""How much of a point's true neighbourhood the map tears apart."""

from __future__ import annotations

import numpy as np

NEIGHBOURS = 10
NEAR = 30  # places on the map within which a true neighbour counts as near
BLOCK = 8_192  # points looked at at once


def reach(n: int) -> tuple[int, int]:
    """How many true neighbours of each of n points are looked for, and among how many on the map.

    Ten among thirty from 61 points on. Below that fewer, so that the thirty are never more than half of the others: a
    map that says nothing would otherwise pass for a good one.
    """
    others = n - 1
    count = min(NEIGHBOURS, max(1, others // 6), max(others, 0))
    return count, max(count, min(NEAR, others // 2))


def distortion(neighbours: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Of each point the share of its true neighbours (n, k) that are far on the map (n, 2): float32 (n,) in 0 to 1.

    Far is outside the circle that holds the point's nearest on the map, as many as `reach` says.
    """
    from scipy.spatial import cKDTree

    n = len(places)
    shares = np.zeros(n, np.float32)
    if n < 2 or not neighbours.shape[1]:
        return shares
    plane = places.astype(np.float64)
    tree = cKDTree(plane)
    near = reach(n)[1]
    for start in range(0, n, BLOCK):
        block = plane[start : start + BLOCK]
        radius = tree.query(block, k=[near + 1])[0]  # (m, 1); the point itself comes first
        away = np.linalg.norm(plane[neighbours[start : start + BLOCK]] - block[:, None], axis=2)  # (m, k)
        shares[start : start + BLOCK] = (away > radius * (1 + 1e-9)).mean(axis=1)
    return shares
