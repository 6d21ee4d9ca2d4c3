"""What a search in a geometry costs beside a raw one, and what its re-ranking misses.

    python -m benchmarks.geometry_search --json

Vectors have the statistics of the example pool's (`benchmarks/pool_like.py`); the index is the exact one in memory, so
what is missed is missed by the candidates.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.index.data import Data
from benchmarks.index.measuring import K, Times, one_thread, recall
from catalog.geometry.transforms import RAW, Geometry, fitted
from catalog.index.space_index import SpaceIndex
from catalog.search.reranking import Limits, Page, pick
from catalog.vectors.numeric import norms

FEATURE = "delta_layers"
QUERIES = 200
BLOCK = 10_000


def main(
    n: Annotated[int, typer.Option(help="Models.")] = 50_000,
    d: Annotated[int, typer.Option(help="Dimensions of a vector.")] = 1_152,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Measures every geometry that searches offer."""
    data = Data(n, d)
    index = SpaceIndex(d)
    index.fill(np.arange(1, n + 1), data.vectors, 1)
    geometries = {RAW: None, **fitted(data.vectors, FEATURE)}
    with one_thread():
        found = {kind: measured(index, data, geometry) for kind, geometry in geometries.items()}
    report: dict[str, Any] = {"n": n, "d": d, "geometries": found}
    typer.echo(json.dumps(report) if as_json else json.dumps(report, indent=2))


def measured(index: SpaceIndex, data: Data, geometry: Geometry | None) -> dict[str, Any]:
    times, queries = Times(), data.queries[:QUERIES]
    answers = [
        times.take(lambda query=query: pick(index, query, Page(k=K), Limits(), geometry)[1].model_ids)  # type: ignore[misc]
        for query in queries
    ]
    return times.summary() | {"recall_at_10": recall(answers, nearest(data, queries, geometry) + 1)}


def nearest(data: Data, queries: np.ndarray, geometry: Geometry | None) -> np.ndarray:
    """The rows of the K nearest by comparing all, (q, K)."""
    own = queries if geometry is None else geometry.apply(queries)
    cosines = []
    for start in range(0, data.n, BLOCK):
        block = data.vectors[start : start + BLOCK]
        moved = block if geometry is None else geometry.apply(block)
        cosines.append(own @ moved.T / norms(moved))
    return np.argsort(-np.concatenate(cosines, axis=1), axis=1)[:, :K]


if __name__ == "__main__":
    typer.run(main)
