"""Places in the plane by t-SNE (van der Maaten and Hinton 2008, through openTSNE), near where they were before."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from catalog.maps import distortion
from catalog.maps.placement import place
from catalog.vectors.neighbour_graph import nearest
from catalog.vectors.reduction import reduce

DIMENSIONS = 50  # what t-SNE sees
PERPLEXITY = 30.0
LEAST = 12  # models from which on t-SNE is used
EXACT = 5_000  # models up to which true neighbours are those of the whole vectors
ALONE = 10_000  # models up to which one thread works, so that the same input gives the same bits
STANDING = 0.7  # share of points with a place from which on the last map is only moved, not drawn anew
EXAGGERATION = 12.0  # at first; less for few models, which it would draw into one point
SPREAD = 1e-4  # standard deviation that a new map starts with, as openTSNE recommends


@dataclass(frozen=True)
class Layout:
    """Places float32 (n, 2), each point's distortion float32 (n,), and what was done."""

    places: np.ndarray
    distortion: np.ndarray
    parameters: dict[str, Any]


def lay_out(
    unit: np.ndarray,
    last: np.ndarray | None = None,
    seed: int = 0,
    tell: Callable[[str], None] = lambda stage: None,
) -> Layout:
    """A map of unit vectors (n, d), float32 or float16.

    `last` (n, 2) has the places on the last map, NaN for points it did not hold. `tell` hears what it
    is at. Deterministic up to `ALONE` vectors, and beyond but for what threads do to the last bits.
    """
    n = len(unit)
    rows = unit
    last = np.full((n, 2), np.nan, np.float32) if last is None else last
    known = np.isfinite(last).all(axis=1)
    parameters: dict[str, Any] = {"seed": seed, "known": int(known.sum())}
    if n < LEAST:
        places = aligned(principal_places(rows), last)
        parameters["method"] = "principal components"
    else:
        tell("reducing")
        if min(rows.shape) > DIMENSIONS:
            rows = reduce(unit, DIMENSIONS, seed).rows
        rows = rows.astype(np.float32, copy=False)
        tell("drawing")
        start = started(rows, last) if known.sum() >= 3 else None
        standing = start is not None and float(known.mean()) >= STANDING
        places = aligned(_tsne(rows, start, standing, seed, parameters), last)
    tell("measuring")
    count = distortion.reach(n)[0]
    seen = unit.astype(np.float32, copy=False) if n <= EXACT else rows
    neighbours = nearest(seen, count, seed)[0] if count else np.empty((n, 0), np.int64)
    return Layout(places, distortion.distortion(neighbours, places), parameters)


def principal_places(rows: np.ndarray) -> np.ndarray:
    """The first two principal components of rows (n, r), float32 (n, 2), each with its sign fixed."""
    places = np.zeros((len(rows), 2), np.float32)
    if len(rows) > 1:
        moved = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
        _, _, axes = np.linalg.svd(moved, full_matrices=False)
        along = moved @ axes[:2].T
        along *= np.where(along[np.abs(along).argmax(axis=0), np.arange(along.shape[1])] < 0, -1, 1)
        places[:, : along.shape[1]] = along
    return places


def started(rows: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Where each point begins: at its last place, or at the mean of those of its neighbours that have one."""
    known = np.isfinite(last).all(axis=1)
    start = last.astype(np.float64)
    start[~known] = place(rows[~known], rows[known], last[known])
    return start


def aligned(places: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Turned, mirrored and moved, never stretched, to lie on the last map as well as can be (Procrustes): float32.

    Without anything to lie on it is centred.
    """
    known = np.isfinite(last).all(axis=1)
    if not known.any():
        return (places - places.mean(axis=0)).astype(np.float32) if len(places) else places.astype(np.float32)
    ours, theirs = places[known].astype(np.float64), last[known].astype(np.float64)
    left, _, right = np.linalg.svd((ours - ours.mean(axis=0)).T @ (theirs - theirs.mean(axis=0)))
    return ((places - ours.mean(axis=0)) @ (left @ right) + theirs.mean(axis=0)).astype(np.float32)


def _tsne(
    rows: np.ndarray, start: np.ndarray | None, standing: bool, seed: int, parameters: dict[str, Any]
) -> np.ndarray:
    """Places (n, 2). A standing map is moved by a few plain steps; else it is drawn with exaggeration first."""
    import openTSNE
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    n = len(rows)
    perplexity = min(PERPLEXITY, (n - 1) / 3)
    count = min(n - 1, int(3 * perplexity))
    jobs = 1 if n <= ALONE else os.cpu_count() or 1
    early, late = (0, 250) if standing else (250, 500)
    exaggeration = min(EXAGGERATION, max(1.0, n / 10))
    parameters |= {"method": "t-SNE", "perplexity": round(perplexity, 3), "dimensions": rows.shape[1]}
    parameters |= {"standing": standing, "early_iterations": early, "iterations": late}
    if start is None or not standing:
        start = principal_places(rows) if start is None else start
        start = start * (SPREAD / max(float(start[:, 0].std()), 1e-12))
        start = start + np.random.default_rng(seed).normal(0, SPREAD / 100, start.shape)  # twins must be able to part
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy deprecations inside openTSNE
        affinities = PerplexityBasedNN(
            perplexity=perplexity, knn_index=PrecomputedNeighbors(*nearest(rows, count, seed)), n_jobs=jobs
        )
        embedding = openTSNE.TSNEEmbedding(
            np.ascontiguousarray(start, np.float64),
            affinities,
            negative_gradient_method="bh" if n <= ALONE else "fft",
            n_jobs=jobs,
            random_state=seed,
        )
        if early:
            embedding.optimize(early, exaggeration=exaggeration, momentum=0.5, inplace=True)
        embedding.optimize(late, momentum=0.8, inplace=True)
    return np.asarray(embedding)
