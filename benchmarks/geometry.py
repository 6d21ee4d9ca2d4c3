"""Which geometry tells near fine-tunes apart best, with its parameters chosen on other domains than it is judged on.

    python -m benchmarks.geometry --json
    python -m benchmarks.geometry --plots docs/images --csv docs/representation/geometries.csv

Reads the vectors that ship in `benchmarks/hard_pool/` and computes in numpy alone. Every geometry is fitted to a whole
pool without labels. Two domains at a time are held out, all pairs of them; the parameters that give the best silhouette
among the other domains' models are taken, and the held-out domains' models are judged, among all. `new` is the same
with the geometry fitted without the held-out domains, as if they came to the space after it was made.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.hard_pool.representations import Embedded, easy, hard, representations, unit
from catalog.geometry import transforms
from workers.evaluation import measures

Floats = NDArray[Any]
Distance = Callable[[Floats, Floats], Floats]  # vectors (n, d), and those that are fitted to -> (n, n)
PLAIN = "delta_activations"
POWERS_OF_NORM = (0.0, 0.5, 1.0)
SHARES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
LEVELS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
NEIGHBOURS = (2, 3, 5, 10)


@dataclass(frozen=True)
class Candidate:
    family: str
    parameters: tuple[tuple[str, float], ...]
    distance: Distance


def candidates() -> list[Candidate]:
    grid: dict[str, list[dict[str, float]]] = {
        "raw": [{}],
        "centred": _grid(norm_power=POWERS_OF_NORM),
        "standardised": _grid(norm_power=POWERS_OF_NORM, power=(0.25, 0.5, 0.75, 1.0)),
        "all_but_the_top": _grid(norm_power=POWERS_OF_NORM, top=(1, 2, 3, 5)),
        "whitened": _grid(norm_power=POWERS_OF_NORM, shrinkage=(0.1, 0.3, 0.5, 0.7, 0.9, 0.97)),
        "leading": _grid(norm_power=POWERS_OF_NORM, share=SHARES),
        "leading, gains": _grid(norm_power=POWERS_OF_NORM, share=SHARES, power=(-0.5, -0.25, 0.25, 0.5, 1.0)),
        "denoised": _grid(norm_power=(1.0,), level=LEVELS),
        "denoised, floor": _grid(norm_power=(1.0,), level=LEVELS, floor=(0.2, 0.3, 0.5, 0.7)),
        "signed power": _grid(norm_power=POWERS_OF_NORM, exponent=(0.25, 0.5, 0.75, 1.5)),
        "ranks": _grid(norm_power=POWERS_OF_NORM),
        "local scaling": _grid(norm_power=POWERS_OF_NORM, neighbours=NEIGHBOURS),
        "norm-aware": _grid(weight=(0.1, 0.2, 0.3, 0.5)),
    }
    return [
        Candidate(family, tuple(parameters.items()), _distance(family, parameters))
        for family, listed in grid.items()
        for parameters in listed
    ]


def _grid(**values: tuple[float, ...]) -> list[dict[str, float]]:
    return [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]


def _distance(family: str, parameters: dict[str, float]) -> Distance:
    other = {"signed power": _signed_power, "ranks": _ranks, "local scaling": _local, "norm-aware": _norm_aware}
    if family in other:
        return lambda vectors, seen: other[family](vectors, seen, **parameters)
    fit = transforms.GEOMETRIES[family.split(",", maxsplit=1)[0]]
    return lambda vectors, seen: cosine_distance(fit(seen, **_whole(parameters)).apply(vectors))


def _whole(parameters: dict[str, float]) -> dict[str, Any]:
    return {name: int(value) if name == "top" else value for name, value in parameters.items()}


def cosine_distance(vectors: Floats) -> Floats:
    wide = vectors.astype(np.float64)
    return measures.distances(wide @ wide.T)


def _signed_power(vectors: Floats, seen: Floats, norm_power: float, exponent: float) -> Floats:
    """Coordinates in standard deviations, to a power that keeps their sign."""
    y = transforms.standardised(seen, norm_power).apply(vectors)
    return cosine_distance(np.sign(y) * np.abs(y) ** exponent)


def _ranks(vectors: Floats, seen: Floats, norm_power: float) -> Floats:
    """Every coordinate as the model's place among all in it: cosine is then Spearman-like."""
    start = transforms.centred(seen, norm_power)
    known = np.sort(start.apply(seen), axis=0)
    places = [np.searchsorted(known[:, each], column) for each, column in enumerate(start.apply(vectors).T)]
    return cosine_distance(np.array(places).T - (len(seen) - 1) / 2)


def _local(vectors: Floats, seen: Floats, norm_power: float, neighbours: int) -> Floats:
    """Centred cosines less both models' mean cosine to their nearest (CSLS; Conneau et al. 2018, arXiv 1710.04087)."""
    y = unit(transforms.centred(seen, norm_power).apply(vectors)).astype(np.float64)
    cosines = y @ y.T
    others = np.sort(np.where(np.eye(len(y), dtype=bool), -np.inf, cosines), axis=1)[:, ::-1]
    local = others[:, : int(neighbours)].mean(axis=1)
    found = np.clip(1 - (2 * cosines - local[:, None] - local), 0, None)
    np.fill_diagonal(found, 0)
    return found


def _norm_aware(vectors: Floats, seen: Floats, weight: float) -> Floats:
    """Cosine distance of centred directions plus the difference of the norms' logarithms."""
    norms = np.log(np.linalg.norm(vectors, axis=1).astype(np.float64))
    return cosine_distance(transforms.centred(seen, 1.0).apply(vectors)) + weight * np.abs(norms[:, None] - norms)


@dataclass(frozen=True)
class Judged:
    """One family on one representation. `chosen` is what most folds chose."""

    representation: str
    family: str
    chosen: dict[str, float]
    held_out: float
    held_out_nearest: float
    new: float
    new_nearest: float
    best: float
    easy: float
    easy_nearest: float
    preferred: float


def judge(vectors: Floats, pool: Embedded, family: list[Candidate]) -> tuple[Candidate, dict[str, float]]:
    """The parameters that most folds chose, and the figures of `Judged` that come from the harder pool."""
    labels = pool.numbers
    distances = [candidate.distance(vectors, vectors) for candidate in family]
    chosen, figures = [], []
    for held_out in folds(labels):
        place = best_inside(distances, labels, ~held_out)
        chosen.append(place)
        as_new = family[place].distance(vectors, vectors[~held_out])
        figures.append([*_of(distances[place], labels, held_out), *_of(as_new, labels, held_out)])
    names = ("held_out", "held_out_nearest", "new", "new_nearest")
    found = dict(zip(names, np.mean(figures, axis=0).tolist(), strict=True))
    found["best"] = max(measures.silhouette(distance, labels) for distance in distances)
    return family[int(np.bincount(chosen).argmax())], found


def choose(family: list[Candidate], vectors: Floats, labels: Floats, inside: NDArray[np.bool_]) -> int:
    """The place of the candidate that is best among the models inside."""
    return best_inside([candidate.distance(vectors, vectors) for candidate in family], labels, inside)


def best_inside(distances: list[Floats], labels: Floats, inside: NDArray[np.bool_]) -> int:
    """As `choose`, of distances that are known; no label of a model outside is read."""
    known = np.unique(labels[inside], return_inverse=True)[1]
    return int(np.argmax([measures.silhouette(each[np.ix_(inside, inside)], known) for each in distances]))


def _of(distance: Floats, labels: NDArray[np.int64], judged: NDArray[np.bool_]) -> tuple[float, float]:
    """Mean silhouette and 1-NN of some models among all."""
    return float(measures.silhouettes(distance, labels)[judged].mean()), float(right(distance, labels)[judged].mean())


def folds(labels: NDArray[np.int64]) -> Iterator[NDArray[np.bool_]]:
    """Which models are held out: every pair of domains once."""
    for pair in itertools.combinations(range(labels.max() + 1), 2):
        yield np.isin(labels, pair)


def right(distance: Floats, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    away = distance + np.diag(np.full(len(distance), np.inf))
    return labels[away.argmin(axis=1)] == labels


def study() -> list[Judged]:
    pool, preferred = hard()
    fifteen = easy()
    tables = [representations(each) for each in (pool, fifteen, preferred)]
    families = {name: list(group) for name, group in itertools.groupby(candidates(), lambda each: each.family)}
    rows = []
    for representation in tables[0]:
        mine, other, by_preference = (table[representation] for table in tables)
        for name, family in families.items():
            chosen, figures = judge(mine, pool, family)
            of_easy = _of(chosen.distance(other, other), fifteen.numbers, np.ones(len(other), bool))
            of_preferred = measures.silhouette(chosen.distance(by_preference, by_preference), preferred.numbers)
            rows.append(
                Judged(
                    representation,
                    name,
                    dict(chosen.parameters),
                    easy=of_easy[0],
                    easy_nearest=of_easy[1],
                    preferred=of_preferred,
                    **figures,
                )
            )
    return rows


def main(
    plots: Annotated[Path | None, typer.Option(help="Write the plots into this folder.")] = None,
    table_file: Annotated[Path | None, typer.Option("--csv", help="Write all figures into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Judges all geometries on all representations."""
    rows = study()
    if plots:
        from benchmarks.hard_pool import plots as hard_pool_plots

        hard_pool_plots.draw(plots, rows)
    if table_file:
        write(table_file, rows)
    if as_json:
        print(json.dumps({"rows": [vars(row) for row in rows]}))
        return
    Console(width=160).print(table(rows))


def write(path: Path, rows: list[Judged]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(each.name for each in fields(Judged))
        for row in sorted(rows, key=lambda each: -each.held_out):
            chosen = " ".join(f"{name}={value:g}" for name, value in row.chosen.items())
            figures = [f"{value:.3f}" for value in list(vars(row).values())[3:]]
            lines.writerow([row.representation, row.family, chosen, *figures])


def table(rows: list[Judged]) -> Table:
    heads = ("held out", "1-NN", "new", "new 1-NN", "best", "easy", "easy 1-NN", "preferred")
    shown = Table("representation", "family", "chosen", *heads)
    for row in sorted(rows, key=lambda each: -each.held_out):
        said = ", ".join(f"{name} {value:g}" for name, value in row.chosen.items())
        figures = (row.held_out, row.held_out_nearest, row.new, row.new_nearest, row.best)
        figures += (row.easy, row.easy_nearest, row.preferred)
        shown.add_row(row.representation, row.family, said, *(f"{figure:.3f}" for figure in figures))
    return shown


if __name__ == "__main__":
    typer.run(main)
