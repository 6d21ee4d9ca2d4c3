"""The interface of a representation: one vector per model of a pool, with the time that it took."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from catalog.spaces.probes import ProbeSet
from workers.encoding.guard import BaseGuard
from workers.encoding.resident_base import ResidentBase
from workers.evaluation.measures import Floats
from workers.evaluation.pool import Pool, Progress


class Vectors(Protocol):
    """The vectors of n models in one geometry."""

    @property
    def dimension(self) -> int: ...

    @property
    def nbytes(self) -> float:
        """The mean size of one model's vector in bytes."""
        ...

    def gram(self) -> Floats:
        """All inner products, (n, n) float64."""
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays to store, by name."""
        ...


@dataclass(frozen=True, eq=False)
class Dense:
    """Vectors as rows, (n, d) float32."""

    rows: np.ndarray

    @property
    def dimension(self) -> int:
        return int(self.rows.shape[1])

    @property
    def nbytes(self) -> float:
        return self.rows.nbytes / len(self.rows)

    def gram(self) -> Floats:
        rows = self.rows.astype(np.float64)
        return rows @ rows.T

    def arrays(self) -> dict[str, np.ndarray]:
        return {"vectors": self.rows}


@dataclass(frozen=True, eq=False)
class Masks:
    """Binary vectors, each stored as the sorted indices of its ones, (k,) int64."""

    indices: Sequence[np.ndarray]
    dimension: int

    @property
    def nbytes(self) -> float:
        """The mean size of one mask, with indices of 4 bytes, or of 8 if the dimension requires it."""
        return (4 if self.dimension < 2**32 else 8) * float(np.mean([len(mask) for mask in self.indices]))

    def gram(self) -> Floats:
        from scipy.sparse import csr_array

        indices, starts = self._concatenated()
        ones = csr_array((np.ones(len(indices)), indices, starts), shape=(len(self.indices), self.dimension))
        return np.asarray((ones @ ones.T).todense())

    def arrays(self) -> dict[str, np.ndarray]:
        """The concatenated indices of all models; those of model i are `indices[starts[i] : starts[i + 1]]`."""
        indices, starts = self._concatenated()
        return {"indices": indices, "starts": starts, "dimension": np.array(self.dimension)}

    def _concatenated(self) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate(self.indices), np.cumsum([0, *(len(mask) for mask in self.indices)])


@dataclass(frozen=True)
class EvaluationContext:
    """The base, the probes and the options that representations are computed with."""

    base: ResidentBase
    guard: BaseGuard
    probes: ProbeSet
    batch: int
    mask_share: float
    answer_tokens: int


@dataclass(frozen=True, eq=False)
class PoolVectors:
    """The vectors of a pool, the seconds that they took, and the settings to include in the report."""

    vectors: Vectors
    seconds: float
    contract: dict[str, Any]


class Representation(ABC):
    """A way to represent models as vectors; one row of the scorecard."""

    name: str

    @abstractmethod
    def compute(self, pool: Pool, context: EvaluationContext, progress: Progress) -> PoolVectors:
        """Compute the vectors of the pool's models, in order.

        Raises `Refused` if a model has no such vector, and `MissingExtra` if a package is not installed.
        """
