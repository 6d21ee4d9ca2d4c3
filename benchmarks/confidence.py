"""How often a confident neighbor is of the query's domain, by the bound that chance is thought to explain.

    python -m benchmarks.confidence --json

Reads the vectors in `benchmarks/hard_pool/`: the demo's adapters, and those together with the harder pool, whose near
domains (legal-clauses and legal-overruling, ...) count as one. The bounds are the formula for independent directions,
and the cosine that is measured between clusters, which are computed as in the service. Reported for each: the share of
confident neighbors that are of the query's domain, the share of queries with a confident neighbor, and that share once
the domain of the query is taken out of the pool, when none should be.
"""

from __future__ import annotations

import json
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.hard_pool.representations import Embedded, easy, hard, representations, unit
from catalog.clusters import fitting
from catalog.clusters.parameters import Parameters
from catalog.search.confidence import chance_similarity

FEATURES = ("delta_activations", "delta_layers")
COLUMNS = ("pool", "feature", "bound", "cosine", "right", "confident", "confident without its domain")
Row = dict[str, str | float]


def main(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Measure both bounds on the shipped pools."""
    demo, harder = easy(), hard()
    rows = evaluate("demo", [demo]) + evaluate("demo and harder pool", [demo, *harder])
    if as_json:
        print(json.dumps({"confidence": rows}))
        return
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:.2f}" for value in row.values()))
    Console().print(table)


def evaluate(name: str, pools: list[Embedded]) -> list[Row]:
    """Both bounds for the models of several pools together."""
    domains = np.concatenate([[domain(label) for label in pool.labels] for pool in pools])
    rows = []
    for feature in FEATURES:
        vectors = unit(np.concatenate([representations(pool)[feature] for pool in pools]))
        measured = fitting.fit(vectors, Parameters()).unrelated
        assert measured is not None
        bounds = {"formula": chance_similarity(*vectors.shape), "measured": measured}
        rows += [
            dict(zip(COLUMNS, (name, feature, bound, cosine, *shares(vectors, domains, cosine)), strict=True))
            for bound, cosine in bounds.items()
        ]
    return rows


def domain(label: str) -> str:
    """The domain of a label; near domains of the harder pool are one, named as in the demo."""
    return str(label).split("-", maxsplit=1)[0].replace("coding", "code")


def shares(vectors: NDArray[np.float32], domains: NDArray[np.str_], bound: float) -> tuple[float, float, float]:
    """The shares of confident neighbors of the same domain, of queries with a confident neighbor, and of queries with
    one of another domain.
    """
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    same = domains[:, None] == domains
    confident = cosines > bound
    others = (confident & ~same).any(axis=1)
    return float(same[confident].mean()), float(confident.any(axis=1).mean()), float(others.mean())


if __name__ == "__main__":
    typer.run(main)
