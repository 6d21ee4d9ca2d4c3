"""The metrics of the scorecard, computed again with numpy alone from the vectors that it wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def metrics(path: Path) -> dict[str, float]:
    """Silhouette (plain and centered), 1-NN accuracy and adjusted Rand index of one `vectors/NAME.npz`."""
    with np.load(path) as stored:
        labels, clusters, vectors = stored["labels"], stored["clusters"], dense(stored)
    distance = cosine_distance(vectors)
    return {
        "silhouette": silhouette(distance, labels),
        "silhouette_centered": silhouette(cosine_distance(vectors - vectors.mean(axis=0)), labels),
        "nearest": nearest(distance, labels),
        "adjusted_rand": rand(labels, clusters),
    }


def dense(stored: dict[str, np.ndarray]) -> np.ndarray:
    """The stored vectors as dense rows. Masks keep only the coordinates that are one in some model."""
    if "vectors" in stored:
        return stored["vectors"].astype(np.float64)
    used, columns = np.unique(stored["indices"], return_inverse=True)
    rows = np.zeros((len(stored["names"]), len(used)))
    for number, (start, stop) in enumerate(zip(stored["starts"], stored["starts"][1:], strict=False)):
        rows[number, columns[start:stop]] = 1
    return rows


def cosine_distance(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.clip(1 - unit @ unit.T, 0, 1)


def silhouette(distance: np.ndarray, labels: np.ndarray) -> float:
    scores = []
    for row, label in enumerate(labels):
        within = [distance[row, other] for other in range(len(labels)) if labels[other] == label and other != row]
        between = [distance[row][labels == other].mean() for other in set(labels) - {label}]
        a, b = np.mean(within), min(between)
        scores.append((b - a) / max(a, b) if max(a, b) > 1e-12 else 0.0)
    return float(np.mean(scores))


def nearest(distance: np.ndarray, labels: np.ndarray) -> float:
    """1-NN accuracy. Among neighbors at equal distances up to float32 rounding, the first counts."""
    others = distance + 9 * np.eye(len(labels))
    hits = [
        labels[np.flatnonzero(row < row.min() + 1e-6)[0]] == label for row, label in zip(others, labels, strict=True)
    ]
    return float(np.mean(hits))


def rand(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Adjusted Rand index from the contingency table. Each noise point is a cluster of its own."""
    clusters = np.where(clusters < 0, 1000 + np.arange(len(clusters)), clusters)
    table = np.array([[np.sum((labels == a) & (clusters == b)) for b in set(clusters)] for a in set(labels)])

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1) / 2).sum())

    index, rows, columns = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    expected = rows * columns / pairs(np.array([len(labels)]))
    maximum = (rows + columns) / 2
    return 1.0 if maximum == expected else (index - expected) / (maximum - expected)
