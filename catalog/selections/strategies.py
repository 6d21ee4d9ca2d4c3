"""Strategies that select adapters for a task: pure functions from candidates with their cosines to model ids.

A strategy is deterministic. docs/selections.md compares these two with each other and with random sets.
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
        """The candidates without these ids."""
        remaining = ~np.isin(self.ids, list(ids))
        return Candidates(self.ids[remaining], self.cosines[remaining], self.pool[remaining[: len(self.pool)]])


Select = Callable[[Candidates, int], np.ndarray]  # ids (count,), or all candidates if there are fewer


def nearest(candidates: Candidates, count: int) -> np.ndarray:
    """The candidates with the greatest cosines to the task."""
    return candidates.ids[:count]


def diverse(candidates: Candidates, count: int) -> np.ndarray:
    """By maximal marginal relevance among the `CANDIDATE_POOL` nearest; the first one is the nearest."""
    pool = candidates.pool
    return candidates.ids[diversity.mmr_order(candidates.cosines[: len(pool)], pool, count, DIVERSITY)]


STRATEGIES: dict[Strategy, Select] = {Strategy.DIVERSE: diverse, Strategy.NEAREST: nearest}
