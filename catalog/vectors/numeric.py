"""Vector numerics that several rooms share."""

from __future__ import annotations

import numpy as np

from catalog.errors import InvalidVector, SpaceMismatch

# a sum of float32 vectors whose norm is below this share of the sum of their norms is rounding error
RELATIVE_ROUNDING_ERROR = 1e-6
EPSILON = 1e-12  # against division by zero


def normalize(vectors: np.ndarray) -> np.ndarray:
    """Scale rows (n, d), or one vector (d,), to length 1, in the precision of the input. Rows of zeros stay zero."""
    vectors = np.ascontiguousarray(vectors)
    return np.asarray(vectors / norms(vectors)[..., None], vectors.dtype)


def norms(vectors: np.ndarray) -> np.ndarray:
    """The norms (n,) of vectors (n, d), in their precision; 1 for zeros."""
    squares = np.einsum("...d,...d->...", vectors, vectors)
    if np.any((squares < 1e-20) | (squares > 1e20)):  # may have underflowed or overflowed in float32
        squares = np.einsum("...d,...d->...", vectors, vectors, dtype=np.float64)
    return np.where(squares > 0, np.sqrt(squares), 1)


def inner_products(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Inner products (n,) of vectors (n, d) with a query (d,), in the calling thread.

    BLAS would split even one query among threads, which wait for each other while the cores are busy.
    """
    return np.einsum("nd,d->n", vectors, query)


def validate_vector(vector: np.ndarray, dimension: int) -> np.ndarray:
    """Check a client's vector, and return it as float32 (d,). Raises `SpaceMismatch` and `InvalidVector`."""
    if vector.shape != (dimension,):
        raise SpaceMismatch(f"The vector has {vector.size} entries; vectors of this space have {dimension}.")
    with np.errstate(over="ignore"):
        vector = vector.astype(np.float32)
    if not np.isfinite(vector).all() or not vector.any():
        raise InvalidVector("A vector must have finite float32 entries, at least one of them nonzero.")
    return vector


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of vectors (d,) and (d,), within [-1, 1]."""
    norm_product = max(float(np.linalg.norm(a)) * float(np.linalg.norm(b)), EPSILON)
    return min(1.0, max(-1.0, float(a.astype(np.float64) @ b.astype(np.float64)) / norm_product))
