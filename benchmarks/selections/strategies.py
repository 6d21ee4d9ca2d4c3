"""Strategies with random members, in addition to those of Deltadex: the control, and one with the nearest adapter."""

from __future__ import annotations

import numpy as np

from catalog.selections.strategies import STRATEGIES, Candidates, Select, Strategy

ANCHORED, RANDOM = "anchored", "random"
COMPARED = (Strategy.NEAREST, ANCHORED, Strategy.DIVERSE)  # with `RANDOM`


def strategies(seed: int) -> dict[str, Select]:
    """The strategies of Deltadex, `anchored` and `random`, by name. The random members depend on the seed and on the
    ids of the candidates, but not on the order of the candidates.
    """

    def anchored(candidates: Candidates, count: int) -> np.ndarray:
        """The nearest candidate, and `count - 1` random ones."""
        first, others = candidates.ids[:1], np.sort(candidates.ids[1:])
        return np.concatenate([first, np.random.default_rng([seed, 1]).permutation(others)[: count - 1]])

    def random(candidates: Candidates, count: int) -> np.ndarray:
        return np.random.default_rng([seed, 3]).permutation(np.sort(candidates.ids))[:count]

    return {
        Strategy.NEAREST: STRATEGIES[Strategy.NEAREST],
        ANCHORED: anchored,
        Strategy.DIVERSE: STRATEGIES[Strategy.DIVERSE],
        RANDOM: random,
    }
