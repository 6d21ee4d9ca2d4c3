"""A subset of the rows of a segment, in the format of FAISS: one bit per row, the lowest bit of a byte first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import faiss
import numpy as np


@dataclass(frozen=True)
class RowBitmap:
    """The rows that a search may return, of n: `bits` uint8 (ceil(n / 8),) and the number of bits set. Immutable."""

    bits: np.ndarray
    count: int

    @classmethod
    def from_mask(cls, mask: np.ndarray) -> Self:
        """The rows for which a mask, bool (n,), is true."""
        return cls(np.packbits(mask, bitorder="little"), int(np.count_nonzero(mask)))

    @classmethod
    def all(cls, n: int) -> Self:
        return cls.from_mask(np.ones(n, dtype=bool))

    def __and__(self, other: RowBitmap) -> RowBitmap:
        return _from_bits(self.bits & other.bits)

    def without(self, rows: np.ndarray) -> RowBitmap:
        """A bitmap without these rows (m,) int64."""
        if not len(rows):
            return self
        bits = self.bits.copy()
        np.bitwise_and.at(bits, rows >> 3, ~(np.uint8(1) << (rows & 7).astype(np.uint8)))
        return _from_bits(bits)

    def mask(self, n: int) -> np.ndarray:
        """The bitmap as bool (n,)."""
        return np.unpackbits(self.bits, count=n, bitorder="little").astype(bool)

    def indices(self, n: int) -> np.ndarray:
        """The rows as int64 (count,), ascending."""
        return np.flatnonzero(self.mask(n))

    def selector(self) -> faiss.IDSelector:
        """A selector that reads `bits` without a copy, and so is valid only while this object lives."""
        return faiss.IDSelectorBitmap(self.bits)  # type: ignore[call-arg, arg-type]


def _from_bits(bits: np.ndarray) -> RowBitmap:
    return RowBitmap(bits, int(np.bitwise_count(bits).sum()))
