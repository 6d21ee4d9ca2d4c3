"""Unit vectors in well-separated groups."""

from __future__ import annotations

import numpy as np


def blobs(
    groups: int, size: int, dimension: int = 24, spread: float = 0.1, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Shuffled unit vectors float32 (groups * size, dimension) around orthogonal axes, and the group of each row."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(groups), size))
    rows = np.eye(groups, dimension)[labels] + spread * generator.normal(size=(len(labels), dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels
