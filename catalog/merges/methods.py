"""Merge specs: which adapters to merge, with which weights, by which method of PEFT's `add_weighted_adapter`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_PARTS = 16  # adapters in a merge
MAX_WEIGHT = 100.0
MAX_RANK = 512
DEFAULT_METHOD = "cat"
DEFAULT_DENSITY = 0.5


@dataclass(frozen=True)
class Method:
    """A method of PEFT.

    If it `combines_factors`, it combines all A and all B separately: all ranks must be equal, and the product of the
    results has terms B_i A_j that no part has. Otherwise it combines the products B_i A_i, and a method whose name ends
    in svd then truncates the rank of the result. A method that `prunes` keeps a share of the values, chosen at `random`
    or by magnitude. A method that `elects_sign` averages the values that have the elected sign. `mergekit` is the name
    of mergekit's method that does the same to whole models, if there is one.
    """

    name: str
    combines_factors: bool = False
    prunes: bool = False
    random: bool = False
    elects_sign: bool = False
    mergekit: str | None = None

    @property
    def truncates_rank(self) -> bool:
        return self.name.endswith("svd")

    @property
    def setting_names(self) -> list[str]:
        """The settings of a `MergeSpec` that have a meaning for this method."""
        applies = {"density": self.prunes, "rank": self.truncates_rank, "seed": self.random}
        return [name for name, has_meaning in applies.items() if has_meaning]


METHODS = {
    method.name: method
    for method in (
        Method("cat", mergekit="task_arithmetic"),
        Method("svd", mergekit="task_arithmetic"),
        Method("linear", combines_factors=True, mergekit="task_arithmetic"),
        Method("ties", combines_factors=True, prunes=True, elects_sign=True, mergekit="ties"),
        Method("ties_svd", prunes=True, elects_sign=True, mergekit="ties"),
        Method("dare_linear", combines_factors=True, prunes=True, random=True, mergekit="dare_linear"),
        Method("dare_linear_svd", prunes=True, random=True, mergekit="dare_linear"),
        Method("dare_ties", combines_factors=True, prunes=True, random=True, elects_sign=True, mergekit="dare_ties"),
        Method("dare_ties_svd", prunes=True, random=True, elects_sign=True, mergekit="dare_ties"),
        Method("magnitude_prune", combines_factors=True, prunes=True),
        Method("magnitude_prune_svd", prunes=True),
    )
}


@dataclass(frozen=True)
class MergeSpec:
    """`weights` are by the repo ids of the parts, in their order. `density` is the share of the values that a pruning
    method keeps. `rank` is that of the result of a method that truncates ranks (None: the highest of the parts).
    `seed` is that of a random method.
    """

    weights: Mapping[str, float]
    method: str = DEFAULT_METHOD
    density: float = DEFAULT_DENSITY
    rank: int | None = None
    seed: int = 0

    @property
    def definition(self) -> Method:
        return METHODS[self.method]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that have a meaning for the method."""
        return {name: getattr(self, name) for name in self.definition.setting_names}
