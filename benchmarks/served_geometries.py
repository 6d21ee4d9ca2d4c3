"""The geometries that searches offer, on the harder pool: as fitted, and with models that came after the fit.

    python -m benchmarks.served_geometries --json

Reads the vectors that ship in `benchmarks/hard_pool/`. Every figure is a mean silhouette (distance clip(1 - cos, 0, 1))
and the share of models whose nearest other has their label: `pool`, all models as the geometry was fitted to them;
`arrivals`, one model of every domain at a time that came after the fit; `new domains`, every pair of domains that came
after it; `easy` and `preferred`, the example pool and the adapters tuned by preference, fitted to themselves.
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

from benchmarks.geometry import cosine_distance, folds, right
from benchmarks.hard_pool.representations import Embedded, Floats, easy, hard, representations
from catalog.geometry import transforms
from catalog.geometry.transforms import BLOCKS, RAW, SERVED, Geometry
from workers.evaluation import measures

FEATURES = ("delta_activations", "delta_layers")
Fit = Callable[[Floats], Geometry]
Figures = tuple[float, float]  # silhouette, 1-NN


@dataclass(frozen=True)
class Served:
    feature: str
    kind: str
    pool: Figures
    arrivals: Figures
    new_domains: Figures
    easy: Figures
    preferred: Figures


def study() -> list[Served]:
    pool, preferred = hard()
    return [judged(feature, kind, pool, preferred, easy()) for feature in FEATURES for kind in (RAW, *SERVED)]


def judged(feature: str, kind: str, pool: Embedded, preferred: Embedded, fifteen: Embedded) -> Served:
    fit: Fit = transforms.raw
    if kind != RAW:
        fit = partial(SERVED[kind], norm_power=1.0, blocks=BLOCKS.get(feature, 1))
    vectors, labels = representations(pool)[feature], pool.numbers
    return Served(
        feature,
        kind,
        whole(fit, pool, feature),
        after(fit, vectors, labels, turns(labels)),
        after(fit, vectors, labels, folds(labels)),
        whole(fit, fifteen, feature),
        whole(fit, preferred, feature),
    )


def whole(fit: Fit, pool: Embedded, feature: str) -> Figures:
    vectors = representations(pool)[feature]
    distance = cosine_distance(fit(vectors).apply(vectors))
    return measures.silhouette(distance, pool.numbers), float(right(distance, pool.numbers).mean())


def after(fit: Fit, vectors: Floats, labels: NDArray[np.int64], late: Iterator[NDArray[np.bool_]]) -> Figures:
    """Of the models that are late each time, among all."""
    found = []
    for each in late:
        distance = cosine_distance(fit(vectors[~each]).apply(vectors))
        mine = measures.silhouettes(distance, labels)[each].mean(), right(distance, labels)[each].mean()
        found.append(mine)
    silhouette, nearest = np.mean(found, axis=0)
    return float(silhouette), float(nearest)


def turns(labels: NDArray[np.int64]) -> Iterator[NDArray[np.bool_]]:
    """One model of every label, each model once where labels have as many."""
    places = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    for turn in range(max(len(each) for each in places)):
        late = np.zeros(len(labels), bool)
        late[[each[turn % len(each)] for each in places]] = True
        yield late


def main(as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False) -> None:
    """Judges every geometry that searches offer."""
    rows = study()
    if as_json:
        print(json.dumps({"rows": [vars(row) for row in rows]}))
        return
    shown = Table("feature", "geometry", "pool", "arrivals", "new domains", "easy", "preferred")
    for row in rows:
        figures = (row.pool, row.arrivals, row.new_domains, row.easy, row.preferred)
        shown.add_row(row.feature, row.kind, *(f"{silhouette:.3f} {nearest:.3f}" for silhouette, nearest in figures))
    Console(width=120).print(shown)


if __name__ == "__main__":
    typer.run(main)
