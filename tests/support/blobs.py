"""Unit vectors in groups that are plain to see."""

from __future__ import annotations

import numpy as np


def blobs(
    groups: int, each: int, dimension: int = 24, spread: float = 0.1, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows float32 (groups * each, dimension) around orthogonal axes, shuffled, and the group of each."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(groups), each))
    rows = np.eye(groups, dimension)[labels] + spread * generator.normal(size=(len(labels), dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels
