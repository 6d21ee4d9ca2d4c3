"""What a representation is: a vector for every model of a pool, made in a time that is measured."""

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
from workers.evaluation.pool import Pool, Tell


class Vectors(Protocol):
    """The vectors of n models in one geometry."""

    @property
    def dimension(self) -> int: ...

    @property
    def nbytes(self) -> float:
        """Of one model's vector, on average."""
        ...

    def gram(self) -> Floats:
        """All inner products, (n, n) float64."""
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """What is stored, by name."""
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
    """Binary vectors, by the sorted places of their ones, (k,) int64 each."""

    places: Sequence[np.ndarray]
    dimension: int

    @property
    def nbytes(self) -> float:
        """Of the places, in the least whole number of 4 or 8 bytes that holds them."""
        return (4 if self.dimension < 2**32 else 8) * float(np.mean([len(each) for each in self.places]))

    def gram(self) -> Floats:
        from scipy.sparse import csr_array

        indices, starts = self._joined()
        ones = csr_array((np.ones(len(indices)), indices, starts), shape=(len(self.places), self.dimension))
        return np.asarray((ones @ ones.T).todense())

    def arrays(self) -> dict[str, np.ndarray]:
        """The places of all models behind one another; model i's are from `starts[i]` to `starts[i + 1]`."""
        indices, starts = self._joined()
        return {"places": indices, "starts": starts, "dimension": np.array(self.dimension)}

    def _joined(self) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate(self.places), np.cumsum([0, *(len(each) for each in self.places)])


@dataclass(frozen=True)
class Setting:
    """What vectors are made with."""

    base: ResidentBase
    guard: BaseGuard
    probes: ProbeSet
    batch: int
    mask_share: float
    answer_tokens: int


@dataclass(frozen=True, eq=False)
class Made:
    """A pool's vectors, the seconds that they took, and what they were made with, for the report."""

    vectors: Vectors
    seconds: float
    contract: dict[str, Any]


class Representation(ABC):
    """One line of the scorecard."""

    name: str

    @abstractmethod
    def make(self, pool: Pool, setting: Setting, tell: Tell) -> Made:
        """The vectors of the pool's models, in order.

        Raises `Refused` where some model has no such vector, `MissingExtra` where a package is missing.
        """
