"""The parameters of a cluster run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from catalog.errors import InvalidInput

Algorithm = Literal["hdbscan", "kmeans", "agglomerative"]
DIMENSIONS = 64  # dimensions that the vectors of a large space are reduced to


@dataclass(frozen=True)
class Parameters:
    """`min_cluster_size` and `min_samples` are those of HDBSCAN (None: see `for_models`). `clusters` is the number of
    clusters that the other two algorithms form. `dimensions` is what a large space is reduced to (0 disables the
    reduction). `seed` seeds all random draws.
    """

    algorithm: Algorithm = "hdbscan"
    min_cluster_size: int | None = None
    min_samples: int | None = None
    clusters: int | None = None
    dimensions: int = DIMENSIONS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.algorithm != "hdbscan" and self.clusters is None:
            raise InvalidInput(f"{self.algorithm} needs the number of clusters: set `clusters`.")
        if self.algorithm == "hdbscan" and self.clusters is not None:
            raise InvalidInput("hdbscan determines the number of clusters itself: omit `clusters`.")

    def for_models(self, n: int) -> Self:
        """These parameters with the defaults for n models filled in: `min_cluster_size` is ln(n), at least 3, and
        `min_samples` the same, at most 10.
        """
        if self.algorithm != "hdbscan":
            return self
        size = self.min_cluster_size or max(3, round(math.log(max(n, 1))))
        return type(self)(**asdict(self) | {"min_cluster_size": size, "min_samples": self.min_samples or min(size, 10)})

    def as_dict(self) -> dict[str, Any]:
        """The parameters that are set, without the algorithm, which has its own column."""
        return {name: value for name, value in asdict(self).items() if name != "algorithm" and value is not None}
