"""A direct computation of the silhouette."""

from __future__ import annotations

import numpy as np


def plain_silhouette(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Rousseeuw's silhouette with distance clip(1 - cos, 0, 1), computed row by row from its definition."""
    scores = []
    for row in range(len(labels)):
        distances = [
            min(1.0, max(0.0, 1 - float(vectors[row] @ other / np.linalg.norm(vectors[row]) / np.linalg.norm(other))))
            for other in vectors
        ]
        means = {
            label: np.mean([distances[i] for i in range(len(labels)) if labels[i] == label and i != row])
            for label in set(labels)
        }
        a = means.pop(labels[row])
        b = min(means.values())
        scores.append((b - a) / max(a, b))
    return float(np.mean(scores))
