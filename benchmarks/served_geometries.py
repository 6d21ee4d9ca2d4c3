"""Compare the geometries among which the defaults of searches were chosen, on the harder pool.

    python -m benchmarks.served_geometries --json

Reads the vectors in `benchmarks/hard_pool/`. The scores are the mean silhouette (distance clip(1 - cos, 0, 1)) and the
share of models whose nearest other model has their label. `pool`: all models, with the geometry fitted to them.
`arrivals`: one model of each domain at a time, which arrives after the fit. `new domains`: each pair of domains, which
arrives after it. `easy` and `preferred`: the example pool and the adapters tuned on preferences, fitted to themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.geometries import SERVABLE, raw
from benchmarks.geometry import cosine_distance, folds, nearest_is_correct
from benchmarks.hard_pool.representations import Embedded, Floats, easy, hard, representations
from catalog.geometry.transforms import BLOCKS, RAW, Geometry
from workers.evaluation import measures

FEATURES = ("delta_activations", "delta_layers")
Fit = Callable[[Floats], Geometry]
Scores = tuple[float, float]  # silhouette, 1-NN


@dataclass(frozen=True)
class ServableResult:
    feature: str
    kind: str
    pool: Scores
    arrivals: Scores
    new_domains: Scores
    easy: Scores
    preferred: Scores


def study() -> list[ServableResult]:
    pool, preferred = hard()
    return [evaluate(feature, kind, pool, preferred, easy()) for feature in FEATURES for kind in (RAW, *SERVABLE)]


def evaluate(feature: str, kind: str, pool: Embedded, preferred: Embedded, fifteen: Embedded) -> ServableResult:
    fit: Fit = raw
    if kind != RAW:
        fit = partial(SERVABLE[kind], norm_power=1.0, blocks=BLOCKS.get(feature, 1))
    vectors, labels = representations(pool)[feature], pool.class_indices
    return ServableResult(
        feature,
        kind,
        score_fitted(fit, pool, feature),
        score_late(fit, vectors, labels, late_rounds(labels)),
        score_late(fit, vectors, labels, folds(labels)),
        score_fitted(fit, fifteen, feature),
        score_fitted(fit, preferred, feature),
    )


def score_fitted(fit: Fit, pool: Embedded, feature: str) -> Scores:
    vectors = representations(pool)[feature]
    distance = cosine_distance(fit(vectors).apply(vectors))
    return measures.silhouette(distance, pool.class_indices), float(
        nearest_is_correct(distance, pool.class_indices).mean()
    )


def score_late(fit: Fit, vectors: Floats, labels: NDArray[np.int64], late: Iterator[NDArray[np.bool_]]) -> Scores:
    """The mean scores of the late models of each mask among all models, with the geometry fitted without them."""
    scores = []
    for mask in late:
        distance = cosine_distance(fit(vectors[~mask]).apply(vectors))
        scores.append(
            (measures.silhouettes(distance, labels)[mask].mean(), nearest_is_correct(distance, labels)[mask].mean())
        )
    silhouette, nearest = np.mean(scores, axis=0)
    return float(silhouette), float(nearest)


def late_rounds(labels: NDArray[np.int64]) -> Iterator[NDArray[np.bool_]]:
    """Masks with one model of each label; each model is in one mask if the labels have equally many models."""
    by_label = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    for number in range(max(len(indices) for indices in by_label)):
        late = np.zeros(len(labels), bool)
        late[[indices[number % len(indices)] for indices in by_label]] = True
        yield late


def main(as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False) -> None:
    """Evaluate raw vectors and each geometry that searches could use."""
    rows = study()
    if as_json:
        print(json.dumps({"rows": [vars(row) for row in rows]}))
        return
    shown = Table("feature", "geometry", "pool", "arrivals", "new domains", "easy", "preferred")
    for row in rows:
        scores = (row.pool, row.arrivals, row.new_domains, row.easy, row.preferred)
        shown.add_row(row.feature, row.kind, *(f"{silhouette:.3f} {nearest:.3f}" for silhouette, nearest in scores))
    Console(width=120).print(shown)


if __name__ == "__main__":
    typer.run(main)
