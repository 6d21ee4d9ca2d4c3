"""Measure the time and memory of clustering many models, and the effect of the reduction on the silhouette.

    python -m benchmarks.clusters --json

The vectors have the statistics of those of the example pool (`benchmarks/pool_like.py`), and their domains are known.
`full` clusters the same models with the same algorithm, but without the reduction. Postgres is not involved.
"""

from __future__ import annotations

import json
import resource
import time
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.pool_like import CHUNK, PoolLike
from catalog.clusters import fitting, quality
from catalog.clusters.parameters import DIMENSIONS, Parameters


def main(
    n: Annotated[int, typer.Option(help="Number of models of the large fit.")] = 100_000,
    d: Annotated[int, typer.Option(help="Dimensions of a vector.")] = 4_096,
    compared: Annotated[
        int, typer.Option(help="Number of models of the fits with and without reduction; 0 skips them.")
    ] = 20_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Measure a large fit, and a smaller one with and without the reduction."""
    report: dict[str, Any] = {"n": n, "d": d, "large": measure(n, d, Parameters(dimensions=DIMENSIONS))}
    report["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if compared:
        report["compared"] = {
            "n": compared,
            "reduced": measure(compared, d, Parameters(dimensions=DIMENSIONS)),
            "full": measure(compared, d, Parameters(dimensions=0)),
        }
    typer.echo(json.dumps(report) if as_json else json.dumps(report, indent=2))


def measure(n: int, d: int, parameters: Parameters) -> dict[str, Any]:
    unit, domains = generate(n, d)
    stages: list[tuple[str, float]] = []
    started = time.perf_counter()
    fitted = fitting.fit(unit, parameters, lambda stage: stages.append((stage, time.perf_counter() - started)))
    seconds = time.perf_counter() - started
    domain_silhouette = quality.sampled_silhouette(unit, domains, parameters.seed)
    clustered = fitted.labels >= 0
    return {
        "seconds": round(seconds, 1),
        "stages": {name: round(at, 1) for name, at in stages},
        "clusters": len(fitted.centroids),
        "noise_share": round(fitted.noise_share, 4),
        "silhouette": fitted.silhouette,
        "silhouette_of_the_domains": domain_silhouette,
        "adjusted_rand_to_the_domains": quality.adjusted_rand(quality.contingency_table(fitted.labels, domains)),
        "adjusted_rand_without_noise": quality.adjusted_rand(
            quality.contingency_table(fitted.labels[clustered], domains[clustered])
        ),
        "metrics": fitted.metrics,
    }


def generate(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (n, d) in float16, the dtype of a fit, and their domains (n,)."""
    source = PoolLike(n, d)
    unit, domains = np.empty((n, d), np.float16), np.empty(n, np.int64)
    for number, start in enumerate(range(0, n, CHUNK)):
        unit[start : start + CHUNK] = source.chunk(number)
        domains[start : start + CHUNK] = source.domains(number)
    return unit, domains


if __name__ == "__main__":
    typer.run(main)
