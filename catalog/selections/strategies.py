"""Which modules to try together for a task. Pure: cosines and vectors in, places out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from catalog.search.diversity import diverse

CROWD = 100  # of the nearest, among which variety is looked for
DIVERSITY = 0.5


class Arm(StrEnum):
    """A way to propose n modules."""

    NEAREST = "nearest"
    ANCHORED = "anchored"  # the nearest, and n - 1 at random
    DIVERSE = "diverse"  # near to the task, and far from one another
    RANDOM = "random"  # the control


@dataclass(frozen=True, eq=False)
class Candidates:
    """Models by id (m,), the nearest to the task first, their `cosines` (m,) to it, and the normalised vectors
    (min(m, CROWD), d) of the first.
    """

    ids: np.ndarray
    cosines: np.ndarray
    near: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def without(self, ids: Iterable[int]) -> Candidates:
        left = ~np.isin(self.ids, list(ids))
        return Candidates(self.ids[left], self.cosines[left], self.near[left[: len(self.near)]])


def propose(arm: Arm, candidates: Candidates, count: int, seed: int) -> list[int]:
    """The ids of `count` models, or of all where there are no more; `seed` decides what is drawn at random, of the
    ids alone: who is near whom changes nothing in it.
    """
    count = min(count, len(candidates))
    if arm is Arm.NEAREST:
        return _ids(candidates.ids[:count])
    if arm is Arm.DIVERSE:
        order = diverse(candidates.cosines[: len(candidates.near)], candidates.near, count, DIVERSITY)
        return _ids(candidates.ids[order])
    draw = np.random.default_rng([seed, list(Arm).index(arm)])
    if arm is Arm.ANCHORED:
        nearest, others = candidates.ids[:1], np.sort(candidates.ids[1:])
        return _ids(np.concatenate([nearest, draw.permutation(others)[: count - 1]]))
    return _ids(draw.permutation(np.sort(candidates.ids))[:count])


def _ids(chosen: np.ndarray) -> list[int]:
    found: list[int] = chosen.tolist()
    return found
