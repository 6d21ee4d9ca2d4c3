"""The latency of a search in a geometry compared with a raw one, and the recall of its reranking.

    python -m benchmarks.geometry_search --json

The vectors have the statistics of the example pool's (`benchmarks/pool_like.py`). The index is the exact one in memory,
so a neighbor that is missed was not among the candidates.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.geometries import fit_servable
from benchmarks.index.data import Data
from benchmarks.index.measuring import K, Times, one_thread, recall
from catalog.geometry.transforms import MAX_SAMPLE, RAW, Geometry
from catalog.index.space_index import SpaceIndex
from catalog.search.reranking import CandidateFilter, PageOptions, rank
from catalog.vectors.numeric import norms

FEATURE = "delta_layers"
QUERIES = 200
BLOCK = 10_000


def main(
    n: Annotated[int, typer.Option(help="Models.")] = 50_000,
    d: Annotated[int, typer.Option(help="Dimensions of a vector.")] = 1_152,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Measure raw vectors and each geometry that searches could use."""
    data = Data(n, d)
    index = SpaceIndex(d)
    index.fill(np.arange(1, n + 1), data.vectors, 1)
    sample = np.sort(np.random.default_rng(0).choice(n, min(n, MAX_SAMPLE), replace=False))
    geometries = {RAW: None, **fit_servable(data.vectors[sample], FEATURE)}
    with one_thread():
        results = {kind: measure(index, data, geometry) for kind, geometry in geometries.items()}
    report: dict[str, Any] = {"n": n, "d": d, "geometries": results}
    typer.echo(json.dumps(report) if as_json else json.dumps(report, indent=2))


def measure(index: SpaceIndex, data: Data, geometry: Geometry | None) -> dict[str, Any]:
    times, queries = Times(), data.queries[:QUERIES]

    def search(query: np.ndarray) -> np.ndarray:
        return rank(index, query, PageOptions(k=K), CandidateFilter(), geometry)[1].model_ids

    answers = [times.measure(partial(search, query)) for query in queries]
    return times.summary() | {"recall_at_10": recall(answers, nearest(data, queries, geometry) + 1)}


def nearest(data: Data, queries: np.ndarray, geometry: Geometry | None) -> np.ndarray:
    """The rows of the K nearest vectors (q, K), by comparing all."""
    images = queries if geometry is None else geometry.apply(queries)
    cosines = []
    for start in range(0, data.n, BLOCK):
        block = data.vectors[start : start + BLOCK]
        moved = block if geometry is None else geometry.apply(block)
        cosines.append(images @ moved.T / norms(moved))
    return np.argsort(-np.concatenate(cosines, axis=1), axis=1)[:, :K]


if __name__ == "__main__":
    typer.run(main)
