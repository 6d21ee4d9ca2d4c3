"""A place on a standing map for a vector that was not there when it was drawn."""

from __future__ import annotations

import numpy as np

NEIGHBOURS = 5
BLOCK = 1_024  # new rows looked at at once


def place(new: np.ndarray, known: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Unit vectors (m, d) beside known ones (n, d) with places (n, 2): float32 (m, 2).

    A new one goes to the mean of its nearest neighbours' places. Each weighs what its cosine is above that of the first
    neighbour that is left out: the cosines of fine-tunes of one base may all be near 1. Nothing known is the origin.
    """
    if not len(known):
        return np.zeros((len(new), 2), np.float32)
    blocks = [_place(new[start : start + BLOCK], known, places) for start in range(0, len(new), BLOCK)]
    return np.concatenate([np.empty((0, 2), np.float32), *blocks])


def _place(new: np.ndarray, known: np.ndarray, places: np.ndarray) -> np.ndarray:
    cosines = new.astype(np.float32, copy=False) @ known.astype(np.float32, copy=False).T  # (m, n)
    looked_at = min(NEIGHBOURS + 1, len(known))
    nearest = np.argpartition(-cosines, looked_at - 1, axis=1)[:, :looked_at]
    near = np.take_along_axis(cosines, nearest, axis=1).astype(np.float64)
    least = near.min(axis=1, keepdims=True) if looked_at > NEIGHBOURS else np.minimum(near.min() - 1, 0)
    weights = near - least
    weights[weights.sum(axis=1) < 1e-9] = 1  # all as near as each other
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("mk,mkc->mc", weights, places[nearest]).astype(np.float32)
