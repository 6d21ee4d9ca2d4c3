"""Vectors that several tests use."""

import numpy as np


def grouped_vectors(n: int, groups: int = 5, dimension: int = 64, noise: float = 0.05, seed: int = 0) -> np.ndarray:
    """Unit vectors float32 (n, dimension). Row i belongs to group i % groups."""
    generator = np.random.default_rng(seed)
    centers = generator.normal(size=(groups, dimension))
    rows = centers[np.arange(n) % groups] + noise * generator.normal(size=(n, dimension)) * np.sqrt(dimension)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def uneven_vectors() -> np.ndarray:
    """Twelve vectors (12, 8) of uneven length around a common direction."""
    generator = np.random.default_rng(0)
    spread = generator.normal(size=(12, 8)) * np.linspace(3, 0.5, 8)
    return ((spread + 2) * generator.uniform(0.1, 10, (12, 1))).astype(np.float32)


def unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors (n, d) scaled to length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
