"""A choice among the rows of a segment, as FAISS wants it: one bit a row, the lowest bit of a byte first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import faiss
import numpy as np


@dataclass(frozen=True)
class Rows:
    """Which of n rows a search may return: `bits` uint8 (ceil(n / 8),), and how many they are. Never changed."""

    bits: np.ndarray
    count: int

    @classmethod
    def where(cls, mask: np.ndarray) -> Self:
        """From bool (n,)."""
        return cls(np.packbits(mask, bitorder="little"), int(np.count_nonzero(mask)))

    @classmethod
    def all(cls, n: int) -> Self:
        return cls.where(np.ones(n, dtype=bool))

    def __and__(self, other: Rows) -> Rows:
        return _counted(self.bits & other.bits)

    def without(self, rows: np.ndarray) -> Rows:
        """The same without some rows (m,) int64."""
        if not len(rows):
            return self
        bits = self.bits.copy()
        np.bitwise_and.at(bits, rows >> 3, ~(np.uint8(1) << (rows & 7).astype(np.uint8)))
        return _counted(bits)

    def mask(self, n: int) -> np.ndarray:
        """As bool (n,)."""
        return np.unpackbits(self.bits, count=n, bitorder="little").astype(bool)

    def places(self, n: int) -> np.ndarray:
        """As int64 (count,), ascending."""
        return np.flatnonzero(self.mask(n))

    def selector(self) -> faiss.IDSelector:
        """For as long as this object lives: it reads `bits` where they are."""
        return faiss.IDSelectorBitmap(self.bits)  # type: ignore[call-arg, arg-type]


def _counted(bits: np.ndarray) -> Rows:
    return Rows(bits, int(np.bitwise_count(bits).sum()))
