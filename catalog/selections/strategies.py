"""Strategies that select adapters for a task. Pure: candidates with their cosines in, model ids out.

A strategy is deterministic. What was measured of these two, and of sets with random members, is in docs/selections.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from catalog.search import diversity

CANDIDATE_POOL = 100  # the nearest candidates, among which `diverse` selects
DIVERSITY = 0.5


class Strategy(StrEnum):
    DIVERSE = "diverse"  # similar to the task, and dissimilar to one another
    NEAREST = "nearest"  # most similar to the task


DEFAULT_STRATEGY = Strategy.DIVERSE


@dataclass(frozen=True, eq=False)
class Candidates:
    """Models by id (m,), the nearest to the task first; their `cosines` (m,) to it; and the unit vectors
    (min(m, CANDIDATE_POOL), d) of the nearest.
    """

    ids: np.ndarray
    cosines: np.ndarray
    pool: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def without(self, ids: Collection[int]) -> Candidates:
        kept = ~np.isin(self.ids, list(ids))
        return Candidates(self.ids[kept], self.cosines[kept], self.pool[kept[: len(self.pool)]])


Select = Callable[[Candidates, int], np.ndarray]  # ids (count,), or of all candidates where there are fewer


def nearest(candidates: Candidates, count: int) -> np.ndarray:
    """The candidates with the greatest cosines to the task."""
    return candidates.ids[:count]


def diverse(candidates: Candidates, count: int) -> np.ndarray:
    """By maximal marginal relevance among the `CANDIDATE_POOL` nearest; the first one is the nearest."""
    pool = candidates.pool
    return candidates.ids[diversity.mmr_order(candidates.cosines[: len(pool)], pool, count, DIVERSITY)]


STRATEGIES: dict[Strategy, Select] = {Strategy.DIVERSE: diverse, Strategy.NEAREST: nearest}
