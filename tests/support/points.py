"""Unit vectors in groups."""

import numpy as np


def grouped(n: int, groups: int = 5, dimension: int = 64, noise: float = 0.05, seed: int = 0) -> np.ndarray:
    """Float32 (n, dimension); row i belongs to group i % groups."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(groups, dimension))
    rows = centres[np.arange(n) % groups] + noise * generator.normal(size=(n, dimension)) * np.sqrt(dimension)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
