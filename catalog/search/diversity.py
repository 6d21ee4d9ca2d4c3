"""Grouping of near-duplicates and diverse rankings. Pure functions from arrays to indices."""

from __future__ import annotations

import numpy as np

BLOCK_ROWS = 128  # vectors compared at once


def representatives(vectors: np.ndarray, min_cosine: float, max_groups: int) -> np.ndarray:
    """Group near-duplicates greedily: the index of the representative of each normalized vector (m, d), best first.

    A vector joins the first representative to which its cosine is at least `min_cosine`, or else represents itself.
    Stops before the representative after `max_groups`, so the result, int64, has at most m entries.
    """
    leaders: list[int] = []
    leader_vectors = np.empty((0, vectors.shape[1]), vectors.dtype)
    result: list[int] = []
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = vectors[start : start + BLOCK_ROWS]
        to_leaders = block @ leader_vectors.T  # (b, leaders before this block)
        within = block @ block.T  # (b, b)
        previous = len(leaders)
        for row in range(len(block)):
            new_leaders = np.array(leaders[previous:], np.int64) - start
            cosines = np.concatenate([to_leaders[row], within[row, new_leaders]])
            near = np.flatnonzero(cosines >= min_cosine)
            if len(near):
                result.append(leaders[near[0]])
                continue
            if len(leaders) == max_groups:
                return np.array(result, np.int64)
            leaders.append(start + row)
            result.append(start + row)
        leader_vectors = vectors[leaders]
    return np.array(result, np.int64)


def mmr_order(cosines: np.ndarray, vectors: np.ndarray, k: int, diversity: float) -> np.ndarray:
    """Indices (k,) by maximal marginal relevance (Carbonell and Goldstein 1998): each next one has the greatest
    (1 - diversity) * cosine to the query - diversity * greatest cosine to the ones selected before.

    `cosines` (m,) are those to the query, `vectors` (m, d) are normalized. Diversity 0 is the order by cosine, and 1
    ignores the query.
    """
    similarities = vectors @ vectors.T  # (m, m)
    relevance = (1 - diversity) * cosines
    redundancy = np.zeros(len(cosines), np.float32)
    remaining = np.ones(len(cosines), dtype=bool)
    order: list[int] = []
    for _ in range(min(k, len(cosines))):
        best = int(np.argmax(np.where(remaining, relevance - diversity * redundancy, -np.inf)))
        order.append(best)
        remaining[best] = False
        redundancy = similarities[best] if len(order) == 1 else np.maximum(redundancy, similarities[best])
    return np.array(order, np.int64)
