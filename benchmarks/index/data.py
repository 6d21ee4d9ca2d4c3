"""Generated vectors with the statistics of real ones, and separate queries with the same statistics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import faiss
import numpy as np

from benchmarks.index.measuring import K
from benchmarks.pool_like import CHUNK, PoolLike

QUERIES = 400


@dataclass(frozen=True)
class Data:
    """`vectors` (n, d) and `queries` (held_out, d), all of length 1, from a seed."""

    n: int
    d: int
    seed: int = 0
    held_out: int = QUERIES

    @cached_property
    def _all(self) -> np.ndarray:
        return PoolLike(self.n + self.held_out, self.d, self.seed).all()

    @property
    def vectors(self) -> np.ndarray:
        return self._all[: self.n]

    @property
    def queries(self) -> np.ndarray:
        return self._all[self.n :]

    @cached_property
    def truth(self) -> np.ndarray:
        """The rows of the K nearest vectors of each query (held_out, K), by exact search."""
        return self.nearest_among(self.n)

    def nearest_among(self, n: int) -> np.ndarray:
        return faiss.knn(self.queries, self.vectors[:n], K, metric=faiss.METRIC_INNER_PRODUCT)[1]

    def blocks(self) -> Iterator[np.ndarray]:
        """The vectors in blocks of `CHUNK`."""
        for start in range(0, self.n, CHUNK):
            yield self.vectors[start : start + CHUNK]
