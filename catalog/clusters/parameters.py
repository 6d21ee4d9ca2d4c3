"""How a space is clustered."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from catalog.errors import InvalidInput

Algorithm = Literal["hdbscan", "kmeans", "agglomerative"]
DIMENSIONS = 64  # that a large space is reduced to


@dataclass(frozen=True)
class Parameters:
    """`min_cluster_size` and `min_samples` are HDBSCAN's (None: see `for_models`), `clusters` is the number that the
    two others look for, `dimensions` what a large space is reduced to (0: not at all), `seed` decides all draws.
    """

    algorithm: Algorithm = "hdbscan"
    min_cluster_size: int | None = None
    min_samples: int | None = None
    clusters: int | None = None
    dimensions: int = DIMENSIONS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.algorithm != "hdbscan" and self.clusters is None:
            raise InvalidInput(f"{self.algorithm} has to be told how many `clusters` to find.")
        if self.algorithm == "hdbscan" and self.clusters is not None:
            raise InvalidInput("hdbscan finds out how many clusters there are: leave `clusters` out.")

    def for_models(self, n: int) -> Self:
        """With what was left open decided for n models: a cluster has ln(n) members at least, and never under three;
        as many neighbours make a neighbourhood, ten at most.
        """
        if self.algorithm != "hdbscan":
            return self
        size = self.min_cluster_size or max(3, round(math.log(max(n, 1))))
        return type(self)(**asdict(self) | {"min_cluster_size": size, "min_samples": self.min_samples or min(size, 10)})

    def as_dict(self) -> dict[str, Any]:
        """Without the algorithm, which is stored by itself."""
        return {name: value for name, value in asdict(self).items() if name != "algorithm" and value is not None}
