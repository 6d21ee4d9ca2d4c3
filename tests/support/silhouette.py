"""The silhouette, computed plainly."""

from __future__ import annotations

import numpy as np


def plain_silhouette(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Rousseeuw's silhouette with distance clip(1 - cos, 0, 1), model by model, from its definition."""
    found = []
    for mine in range(len(labels)):
        away = [
            min(1.0, max(0.0, 1 - float(vectors[mine] @ other / np.linalg.norm(vectors[mine]) / np.linalg.norm(other))))
            for other in vectors
        ]
        of = {
            label: np.mean([away[place] for place in range(len(labels)) if labels[place] == label and place != mine])
            for label in set(labels)
        }
        a = of.pop(labels[mine])
        b = min(of.values())
        found.append((b - a) / max(a, b))
    return float(np.mean(found))
