"""Lays out a map by t-SNE (van der Maaten and Hinton 2008, through openTSNE), starting from the previous map."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from catalog.maps import distortion
from catalog.maps.placement import place
from catalog.vectors.neighbor_graph import nearest_neighbors
from catalog.vectors.reduction import reduce_dimensions

TSNE_DIMENSIONS = 50  # dimensions that vectors are reduced to before t-SNE
PERPLEXITY = 30.0
MIN_TSNE_MODELS = 12  # fewer models are laid out by their principal components
MAX_EXACT_MODELS = 5_000  # up to here true neighbors are those of the full vectors, above of the reduced ones
MAX_SINGLE_THREAD_MODELS = 10_000  # up to here one thread computes the layout, which makes it bitwise reproducible
MIN_UPDATE_SHARE = 0.7  # the previous map is updated, not laid out again, if it has at least this share of the points
EXAGGERATION = 12.0  # early exaggeration; less for few models, which would collapse into one point
INITIAL_STD = 1e-4  # standard deviation of a new map's initial coordinates, as openTSNE recommends


@dataclass(frozen=True)
class Layout:
    """Coordinates float32 (n, 2), the distortion of each point float32 (n,), and the parameters of the layout."""

    coordinates: np.ndarray
    distortion: np.ndarray
    parameters: dict[str, Any]


def lay_out(
    unit: np.ndarray,
    previous: np.ndarray | None = None,
    seed: int = 0,
    report_stage: Callable[[str], None] = lambda stage: None,
) -> Layout:
    """Lay out a map of unit vectors (n, d), float32 or float16.

    `previous` (n, 2) are the coordinates on the previous map, NaN for points that it did not have. `report_stage` is
    called with the name of each stage. The result is deterministic up to `MAX_SINGLE_THREAD_MODELS` vectors, and above
    up to the order in which threads add floating-point numbers.
    """
    n = len(unit)
    rows = unit
    previous = np.full((n, 2), np.nan, np.float32) if previous is None else previous
    on_previous = np.isfinite(previous).all(axis=1)
    parameters: dict[str, Any] = {"seed": seed, "previous_models": int(on_previous.sum())}
    if n < MIN_TSNE_MODELS:
        coordinates = align(principal_components(rows), previous)
        parameters["method"] = "principal components"
    else:
        report_stage("reducing")
        if min(rows.shape) > TSNE_DIMENSIONS:
            rows = reduce_dimensions(unit, TSNE_DIMENSIONS, seed).rows
        rows = rows.astype(np.float32, copy=False)
        report_stage("laying out")
        initial = initial_coordinates(rows, previous) if on_previous.sum() >= 3 else None
        update = initial is not None and float(on_previous.mean()) >= MIN_UPDATE_SHARE
        coordinates = align(_tsne(rows, initial, update, seed, parameters), previous)
    report_stage("measuring")
    count = distortion.neighbor_counts(n)[0]
    compared = unit.astype(np.float32, copy=False) if n <= MAX_EXACT_MODELS else rows
    neighbors = nearest_neighbors(compared, count, seed)[0] if count else np.empty((n, 0), np.int64)
    return Layout(coordinates, distortion.distortion(neighbors, coordinates), parameters)


def principal_components(rows: np.ndarray) -> np.ndarray:
    """The first two principal components of rows (n, r), float32 (n, 2), with the largest value of each positive."""
    components = np.zeros((len(rows), 2), np.float32)
    if len(rows) > 1:
        centered = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
        _, _, axes = np.linalg.svd(centered, full_matrices=False)
        scores = centered @ axes[:2].T
        scores *= np.where(scores[np.abs(scores).argmax(axis=0), np.arange(scores.shape[1])] < 0, -1, 1)
        components[:, : scores.shape[1]] = scores
    return components


def initial_coordinates(rows: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """The previous coordinates of each point; a new point is placed among its neighbors. Float64 (n, 2)."""
    on_previous = np.isfinite(previous).all(axis=1)
    initial = previous.astype(np.float64)
    initial[~on_previous] = place(rows[~on_previous], rows[on_previous], previous[on_previous])
    return initial


def align(coordinates: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """Rotate, mirror and shift a map to fit the previous one, without scaling (Procrustes): float32 (n, 2).

    A map without points of the previous one is centered.
    """
    on_previous = np.isfinite(previous).all(axis=1)
    if not on_previous.any():
        centered = coordinates - coordinates.mean(axis=0) if len(coordinates) else coordinates
        return centered.astype(np.float32)
    source, target = coordinates[on_previous].astype(np.float64), previous[on_previous].astype(np.float64)
    u, _, vh = np.linalg.svd((source - source.mean(axis=0)).T @ (target - target.mean(axis=0)))
    return ((coordinates - source.mean(axis=0)) @ (u @ vh) + target.mean(axis=0)).astype(np.float32)


def _tsne(
    rows: np.ndarray, initial: np.ndarray | None, update: bool, seed: int, parameters: dict[str, Any]
) -> np.ndarray:
    """Coordinates (n, 2). An update of the previous map skips the early exaggeration. Adds to `parameters`."""
    import openTSNE
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    n = len(rows)
    perplexity = min(PERPLEXITY, (n - 1) / 3)
    count = min(n - 1, int(3 * perplexity))
    jobs = 1 if n <= MAX_SINGLE_THREAD_MODELS else os.cpu_count() or 1
    early, late = (0, 250) if update else (250, 500)
    exaggeration = min(EXAGGERATION, max(1.0, n / 10))
    parameters |= {"method": "t-SNE", "perplexity": round(perplexity, 3), "dimensions": rows.shape[1]}
    parameters |= {"update": update, "early_iterations": early, "iterations": late}
    if initial is None or not update:
        initial = principal_components(rows) if initial is None else initial
        initial = initial * (INITIAL_STD / max(float(initial[:, 0].std()), 1e-12))
        noise = np.random.default_rng(seed).normal(0, INITIAL_STD / 100, initial.shape)
        initial = initial + noise  # lets points with equal vectors separate
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy deprecations inside openTSNE
        affinities = PerplexityBasedNN(
            perplexity=perplexity, knn_index=PrecomputedNeighbors(*nearest_neighbors(rows, count, seed)), n_jobs=jobs
        )
        embedding = openTSNE.TSNEEmbedding(
            np.ascontiguousarray(initial, np.float64),
            affinities,
            negative_gradient_method="bh" if n <= MAX_SINGLE_THREAD_MODELS else "fft",
            n_jobs=jobs,
            random_state=seed,
        )
        if early:
            embedding.optimize(early, exaggeration=exaggeration, momentum=0.5, inplace=True)
        embedding.optimize(late, momentum=0.8, inplace=True)
    return np.asarray(embedding)
