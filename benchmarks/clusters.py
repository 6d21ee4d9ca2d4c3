"""How long a clustering of many models takes, how much memory, and what reducing first costs in silhouette.

    python -m benchmarks.clusters --json

Vectors have the statistics of the example pool's (`benchmarks/pool_like.py`), whose domains are known. "Full" clusters
the same models without the reduction, by the same algorithm. Postgres is not part of it.
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
    n: Annotated[int, typer.Option(help="Models of the large fit.")] = 100_000,
    d: Annotated[int, typer.Option(help="Dimensions of a vector.")] = 4_096,
    compared: Annotated[int, typer.Option(help="Models of the fit with and without reduction; 0 skips it.")] = 20_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Measures a large fit, and a smaller one with and without the reduction."""
    report: dict[str, Any] = {"n": n, "d": d, "large": measured(n, d, Parameters(dimensions=DIMENSIONS))}
    report["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if compared:
        report["compared"] = {
            "n": compared,
            "reduced": measured(compared, d, Parameters(dimensions=DIMENSIONS)),
            "full": measured(compared, d, Parameters(dimensions=0)),
        }
    typer.echo(json.dumps(report) if as_json else json.dumps(report, indent=2))


def measured(n: int, d: int, parameters: Parameters) -> dict[str, Any]:
    unit, domains = generated(n, d)
    stages: list[tuple[str, float]] = []
    started = time.perf_counter()
    found = fitting.fit(unit, parameters, lambda stage: stages.append((stage, time.perf_counter() - started)))
    seconds = time.perf_counter() - started
    of_domains = quality.silhouette_of(unit, domains, parameters.seed)
    clustered = found.labels >= 0
    return {
        "seconds": round(seconds, 1),
        "stages": {name: round(at, 1) for name, at in stages},
        "clusters": len(found.centroids),
        "noise_share": round(found.noise_share, 4),
        "silhouette": found.silhouette,
        "silhouette_of_the_domains": of_domains,
        "adjusted_rand_to_the_domains": quality.adjusted_rand(quality.crossed(found.labels, domains)),
        "adjusted_rand_without_noise": quality.adjusted_rand(
            quality.crossed(found.labels[clustered], domains[clustered])
        ),
        "figures": found.figures,
    }


def generated(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors float16 (n, d), as a fit keeps them, and the domain of each (n,)."""
    source = PoolLike(n, d)
    unit, domains = np.empty((n, d), np.float16), np.empty(n, np.int64)
    for number, start in enumerate(range(0, n, CHUNK)):
        unit[start : start + CHUNK] = source.chunk(number)
        domains[start : start + CHUNK] = source.domains(number)
    return unit, domains


if __name__ == "__main__":
    typer.run(main)
