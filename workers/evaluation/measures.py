"""How well a geometry agrees with labels: pure functions of distances, (n, n), and label numbers, (n,).

All of them take weights, (n,): how often each model counts. Copies of one model are never each other's neighbours and
make no pair, so that the weights of a bootstrap resample flatter nothing; weights of one give the usual figures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# vectors are float32: what differs by less is equally far, and would else be ordered by how sums happened to be rounded
EQUALLY_FAR = 1e-6
SAME = 1e-12  # a distance below is that of two equal vectors


def cosines(gram: Floats) -> Floats:
    """Cosines of vectors from their inner products, (n, n); a zero vector has cosine 0 to all."""
    norms = np.sqrt(np.diag(gram))
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    return gram * inverse[:, None] * inverse


def centred(gram: Floats) -> Floats:
    """Inner products of the vectors minus their mean, (n, n) (double centring, as in classical scaling)."""
    rows = gram.mean(axis=0)
    return gram - rows[:, None] - rows + gram.mean()


def distances(gram: Floats) -> Floats:
    """`clip(1 - cos, 0, 1)`, the distance of the paper's released code, with zeros on the diagonal."""
    found = np.clip(1.0 - cosines(gram), 0.0, 1.0)
    found[found < SAME] = 0.0
    np.fill_diagonal(found, 0.0)
    return found


def silhouettes(distance: Floats, labels: Ints, weights: Floats | None = None) -> Floats:
    """Each model's silhouette, (n,) (Rousseeuw 1987): (b - a) / max(a, b).

    a is the mean distance to the others of its label, b the least mean distance to the models of another; 0 where a
    model is the only one of its label.
    """
    each = np.ones(len(labels)) if weights is None else weights
    member = each[:, None] * (labels[:, None] == np.arange(labels.max() + 1))  # (n, L)
    sums, counts = distance @ member, np.broadcast_to(member.sum(axis=0), member.shape).copy()
    own = np.arange(len(labels)), labels
    counts[own] -= each
    means = np.divide(sums, counts, out=np.full_like(sums, np.inf), where=counts > 0)
    a = means[own].copy()
    means[own] = np.inf
    b = means.min(axis=1)
    defined = np.isfinite(a) & np.isfinite(b) & (np.maximum(a, b) > 0)
    return np.divide(b - a, np.maximum(a, b), out=np.zeros(len(labels)), where=defined)


def silhouette(distance: Floats, labels: Ints, weights: Floats | None = None) -> float:
    """The mean of `silhouettes`."""
    return float(np.average(silhouettes(distance, labels, weights), weights=weights))


def nearest_accuracy(distance: Floats, labels: Ints, weights: Floats | None = None) -> float:
    """The share of models whose nearest other has their label; of equally near ones the first counts."""
    others = distance.copy()
    np.fill_diagonal(others, np.inf)
    if weights is not None:
        others[:, weights == 0] = np.inf
    first = (others <= others.min(axis=1, keepdims=True) + EQUALLY_FAR).argmax(axis=1)
    return float(np.average(labels[first] == labels, weights=weights))


def adjusted_rand(labels: Ints, clusters: Ints, weights: Floats | None = None) -> float:
    """Agreement of two partitions in pairs of models, corrected for chance (Hubert and Arabie 1985).

    Models in cluster -1 (noise) are in no cluster together. Copies make no pair of their own, so each label's pairs
    are scaled up to as many as it has models for: else resamples would seem to have smaller labels.
    """
    each = np.ones(len(labels)) if weights is None else weights
    upper = np.triu_indices(len(labels), 1)
    pairs = (each[:, None] * each * _pair_scale(labels, each))[upper]
    same_label = (labels[:, None] == labels)[upper]
    same_cluster = ((clusters[:, None] == clusters) & (clusters >= 0))[upper]
    both, one, other, neither = (
        float(pairs[first & second].sum())
        for first in (same_label, ~same_label)
        for second in (same_cluster, ~same_cluster)
    )
    below = (both + one) * (one + neither) + (both + other) * (other + neither)
    return 1.0 if below == 0 else 2 * (both * neither - one * other) / below


def _pair_scale(labels: Ints, weights: Floats) -> Floats:
    """What a pair's weight is multiplied by, (n, n): within label of n models, n (n - 1) / (n^2 - sum of squares)."""
    size, squares = np.bincount(labels, weights), np.bincount(labels, weights**2)
    distinct = size**2 - squares
    scale = np.divide(size * (size - 1), distinct, out=np.ones_like(size), where=distinct > 0)
    return np.where(labels[:, None] == labels, scale[labels], 1.0)


def density_clusters(gram: Floats, smallest: int) -> Ints:
    """HDBSCAN's clusters from 0, (n,), noise as -1, by Euclidean distance of unit vectors: it orders as cosine does.

    `smallest` is the size from which on a group counts as a cluster.
    """
    from sklearn.cluster import HDBSCAN

    chord = np.sqrt(np.clip(2.0 - 2.0 * cosines(gram), 0.0, None))
    np.fill_diagonal(chord, 0.0)
    fitted = HDBSCAN(min_cluster_size=smallest, metric="precomputed", copy=True).fit(chord)
    return np.asarray(fitted.labels_, dtype=np.int64)
