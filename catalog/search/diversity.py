"""Orders of neighbours other than by cosine alone. Pure: arrays in, places out."""

from __future__ import annotations

import numpy as np

BLOCK = 128  # vectors compared at once


def representatives(vectors: np.ndarray, least: float, most: int) -> np.ndarray:
    """For each normalised vector (m, d), best first, the place of the first one before it that it has a cosine of at
    least `least` to and that stands for itself; its own place where there is none. Stops once `most` stand for
    themselves: int64 of at most m.
    """
    leaders = np.empty((0, vectors.shape[1]), vectors.dtype)
    places: list[int] = []
    found: list[int] = []
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        to_leaders = block @ leaders.T  # (b, leaders before this block)
        inside = block @ block.T  # (b, b)
        known = len(places)
        for number in range(len(block)):
            own = np.array(places[known:], np.int64) - start
            alike = np.flatnonzero(np.concatenate([to_leaders[number], inside[number, own]]) >= least)
            if len(alike):
                found.append(places[alike[0]])
                continue
            if len(places) == most:
                return np.array(found, np.int64)
            places.append(start + number)
            found.append(start + number)
        leaders = vectors[places]
    return np.array(found, np.int64)


def diverse(cosines: np.ndarray, vectors: np.ndarray, k: int, diversity: float) -> np.ndarray:
    """Places (k,) by maximal marginal relevance (Carbonell and Goldstein 1998): each next one has the greatest
    (1 - diversity) * cosine to the query - diversity * greatest cosine to those before it.

    `cosines` (m,) to the query and normalised `vectors` (m, d); 0 is the order by cosine, 1 looks at variety alone.
    """
    alike = vectors @ vectors.T  # (m, m)
    relevance = (1 - diversity) * cosines
    seen = np.zeros(len(cosines), np.float32)
    left = np.ones(len(cosines), dtype=bool)
    order: list[int] = []
    for _ in range(min(k, len(cosines))):
        best = int(np.argmax(np.where(left, relevance - diversity * seen, -np.inf)))
        order.append(best)
        left[best] = False
        seen = alike[best] if len(order) == 1 else np.maximum(seen, alike[best])
    return np.array(order, np.int64)
