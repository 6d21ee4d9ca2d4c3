"""What a merge is asked to be: which adapters, how much of each, by which method of PEFT's `add_weighted_adapter`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

MOST = 16  # adapters in a merge
MAX_WEIGHT = 100.0
MAX_RANK = 512
DEFAULT_METHOD = "cat"
DEFAULT_DENSITY = 0.5


@dataclass(frozen=True)
class Method:
    """`factors`: A and B are each combined by themselves, so all ranks have to be one, and their product holds terms
    B_i A_j that no part has. Otherwise their products are combined, and an SVD cuts the result to a rank (`cuts`).
    `prunes` keeps a share of the numbers, at `random` or the greatest; `elects` a sign for each number and averages
    those that have it. `mergekit` is the method there that does the same to whole models.
    """

    name: str
    factors: bool = False
    prunes: bool = False
    random: bool = False
    elects: bool = False
    mergekit: str | None = None

    @property
    def cuts(self) -> bool:
        return self.name.endswith("svd")


METHODS = {
    method.name: method
    for method in (
        Method("cat", mergekit="task_arithmetic"),
        Method("svd", mergekit="task_arithmetic"),
        Method("linear", factors=True, mergekit="task_arithmetic"),
        Method("ties", factors=True, prunes=True, elects=True, mergekit="ties"),
        Method("ties_svd", prunes=True, elects=True, mergekit="ties"),
        Method("dare_linear", factors=True, prunes=True, random=True, mergekit="dare_linear"),
        Method("dare_linear_svd", prunes=True, random=True, mergekit="dare_linear"),
        Method("dare_ties", factors=True, prunes=True, random=True, elects=True, mergekit="dare_ties"),
        Method("dare_ties_svd", prunes=True, random=True, elects=True, mergekit="dare_ties"),
        Method("magnitude_prune", factors=True, prunes=True),
        Method("magnitude_prune_svd", prunes=True),
    )
}


@dataclass(frozen=True)
class Blend:
    """`weights` by the repo ids of the parts, in their order. `density` is the share of the numbers that a pruning
    method keeps, `rank` that of the result of one that cuts (None: the greatest of the parts), `seed` what a random one
    draws by.
    """

    weights: Mapping[str, float]
    method: str = DEFAULT_METHOD
    density: float = DEFAULT_DENSITY
    rank: int | None = None
    seed: int = 0

    @property
    def how(self) -> Method:
        return METHODS[self.method]

    @property
    def settings(self) -> dict[str, Any]:
        """Those that bear on its method."""
        how = self.how
        told = {"density": how.prunes, "rank": how.cuts, "seed": how.random}
        return {name: getattr(self, name) for name, bears in told.items() if bears}

    @classmethod
    def of(cls, weights: Mapping[str, float], method: str, settings: Mapping[str, Any]) -> Self:
        return cls(weights, method, **settings)
