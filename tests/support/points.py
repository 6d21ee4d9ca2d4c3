"""Unit vectors in overlapping groups."""

import numpy as np


def grouped_vectors(n: int, groups: int = 5, dimension: int = 64, noise: float = 0.05, seed: int = 0) -> np.ndarray:
    """Unit vectors float32 (n, dimension). Row i belongs to group i % groups."""
    generator = np.random.default_rng(seed)
    centers = generator.normal(size=(groups, dimension))
    rows = centers[np.arange(n) % groups] + noise * generator.normal(size=(n, dimension)) * np.sqrt(dimension)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
