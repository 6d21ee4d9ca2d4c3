"""Places vectors on an existing map, among their nearest neighbors."""

from __future__ import annotations

import numpy as np

WEIGHTED_NEIGHBORS = 5
SEARCHED_NEIGHBORS = WEIGHTED_NEIGHBORS + 1  # the last one's cosine is subtracted from the others' to weight them
BLOCK_ROWS = 1_024  # new vectors placed at a time


def place(new: np.ndarray, placed: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Place unit vectors (m, d) among the placed vectors (n, d), which have coordinates (n, 2): float32 (m, 2).

    See `interpolate`.
    """
    if not len(placed):
        return np.zeros((len(new), 2), np.float32)
    blocks = [
        _place_block(new[start : start + BLOCK_ROWS], placed, coordinates) for start in range(0, len(new), BLOCK_ROWS)
    ]
    return np.concatenate([np.empty((0, 2), np.float32), *blocks])


def _place_block(new: np.ndarray, placed: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    cosines = new.astype(np.float32, copy=False) @ placed.astype(np.float32, copy=False).T  # (m, n)
    count = min(SEARCHED_NEIGHBORS, len(placed))
    nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
    return interpolate(np.take_along_axis(cosines, nearest, axis=1), coordinates[nearest])


def interpolate(cosines: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """The weighted mean of the coordinates (m, k, 2) of the k nearest neighbors of m vectors with cosines (m, k):
    float32 (m, 2).

    If k is `SEARCHED_NEIGHBORS`, the weight of a neighbor is its cosine minus the smallest one: the cosines of
    fine-tunes of one base may all be near 1. Without neighbors the result is the origin.
    """
    if not cosines.shape[1]:
        return np.zeros((len(cosines), 2), np.float32)
    cosines = cosines.astype(np.float64)
    smallest = cosines.min(axis=1, keepdims=True)
    weights = cosines - (smallest if cosines.shape[1] > WEIGHTED_NEIGHBORS else np.minimum(smallest - 1, 0))
    weights[weights.sum(axis=1) < 1e-9] = 1  # all neighbors are equally near
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("mk,mkc->mc", weights, coordinates).astype(np.float32)
