"""Numerics of vectors that several rooms share."""

from __future__ import annotations

import numpy as np

from catalog.errors import InvalidVector, SpaceMismatch

ROUNDING = 1e-6  # of the terms' norms: a sum of float32 vectors that is shorter holds no digit that is right
TINY = 1e-12


def normalized(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32 (n, d); a row of zeros stays one."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    return (vectors / norms(vectors)[..., None]).astype(np.float32, copy=False)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows (n, d) of length 1, in the precision that they came in; a row of zeros stays one."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1))


def norms(vectors: np.ndarray) -> np.ndarray:
    """Lengths (n,) of vectors float32 (n, d), 1 for zeros."""
    squares = np.einsum("...d,...d->...", vectors, vectors)
    if np.any((squares < 1e-20) | (squares > 1e20)):  # those of very small and very large entries do not fit in float32
        squares = np.einsum("...d,...d->...", vectors, vectors, dtype=np.float64)
    return np.where(squares > 0, np.sqrt(squares), 1)


def products(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Inner products (n,) of vectors (n, d) with a query (d,), in this thread alone: BLAS divides even one query among
    threads, which wait for each other where the cores have other work to do.
    """
    return np.einsum("nd,d->n", vectors, query)


def checked(vector: np.ndarray, dimension: int) -> np.ndarray:
    """A vector that came from outside, as float32 (d,). Raises `SpaceMismatch` and `InvalidVector`."""
    if vector.shape != (dimension,):
        raise SpaceMismatch(f"The vector has {vector.size} entries; those of this space have {dimension}.")
    with np.errstate(over="ignore"):
        vector = vector.astype(np.float32)
    if not np.isfinite(vector).all() or not vector.any():
        raise InvalidVector("A vector needs finite float32 entries, at least one of them not zero.")
    return vector


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Of vectors (d,) and (d,)."""
    lengths = max(float(np.linalg.norm(one)) * float(np.linalg.norm(other)), TINY)
    return min(1.0, max(-1.0, float(one.astype(np.float64) @ other.astype(np.float64)) / lengths))
