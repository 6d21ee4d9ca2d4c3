"""A place on a standing map for a vector that was not there when it was drawn."""

from __future__ import annotations

import numpy as np

NEIGHBOURS = 5
LOOKED_AT = NEIGHBOURS + 1  # the last one's cosine is what the others' weights are counted from
BLOCK = 1_024  # new rows looked at at once


def place(new: np.ndarray, known: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Unit vectors (m, d) beside known ones (n, d) with places (n, 2): float32 (m, 2), as `among` puts them."""
    if not len(known):
        return np.zeros((len(new), 2), np.float32)
    blocks = [_place(new[start : start + BLOCK], known, places) for start in range(0, len(new), BLOCK)]
    return np.concatenate([np.empty((0, 2), np.float32), *blocks])


def _place(new: np.ndarray, known: np.ndarray, places: np.ndarray) -> np.ndarray:
    cosines = new.astype(np.float32, copy=False) @ known.astype(np.float32, copy=False).T  # (m, n)
    looked_at = min(LOOKED_AT, len(known))
    nearest = np.argpartition(-cosines, looked_at - 1, axis=1)[:, :looked_at]
    return among(np.take_along_axis(cosines, nearest, axis=1), places[nearest])


def among(cosines: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The mean of the places (m, k, 2) of the k nearest neighbours of m vectors, with cosines (m, k): float32 (m, 2).

    Each weighs what its cosine is above that of the first neighbour that is left out, where k is `LOOKED_AT`: the
    cosines of fine-tunes of one base may all be near 1. No neighbour at all is the origin.
    """
    if not cosines.shape[1]:
        return np.zeros((len(cosines), 2), np.float32)
    near = cosines.astype(np.float64)
    least = near.min(axis=1, keepdims=True)
    weights = near - (least if cosines.shape[1] > NEIGHBOURS else np.minimum(least - 1, 0))
    weights[weights.sum(axis=1) < 1e-9] = 1  # all as near as each other
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("mk,mkc->mc", weights, places).astype(np.float32)
