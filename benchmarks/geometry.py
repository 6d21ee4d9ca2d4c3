"""Compare geometries by how well they separate similar fine-tunes. Parameters are chosen on other domains.

    python -m benchmarks.geometry --json
    python -m benchmarks.geometry --plots docs/images --csv docs/representation/geometries.csv

Reads the vectors in `benchmarks/hard_pool/` and computes with numpy only. Each geometry is fitted to a whole pool
without labels. Each pair of domains is held out once: the parameters with the best silhouette among the models of the
other domains are used, and the models of the pair are evaluated among all models. `new` is the same with the geometry
fitted without the pair, as if its domains arrived after the fit.
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

from benchmarks.geometries import GEOMETRIES, standardized
from benchmarks.hard_pool.representations import Embedded, easy, hard, representations, unit
from catalog.geometry.transforms import centered
from workers.evaluation import measures

Floats = NDArray[Any]
Distance = Callable[[Floats, Floats], Floats]  # vectors (n, d), and those that are fitted to -> (n, n)
PLAIN = "delta_activations"
POWERS_OF_NORM = (0.0, 0.5, 1.0)
SHARES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
LEVELS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
NEIGHBORS = (2, 3, 5, 10)


@dataclass(frozen=True)
class Candidate:
    family: str
    parameters: tuple[tuple[str, float], ...]
    distance: Distance


def candidates() -> list[Candidate]:
    grid: dict[str, list[dict[str, float]]] = {
        "raw": [{}],
        "centered": _grid(norm_power=POWERS_OF_NORM),
        "standardized": _grid(norm_power=POWERS_OF_NORM, power=(0.25, 0.5, 0.75, 1.0)),
        "all_but_the_top": _grid(norm_power=POWERS_OF_NORM, top=(1, 2, 3, 5)),
        "whitened": _grid(norm_power=POWERS_OF_NORM, shrinkage=(0.1, 0.3, 0.5, 0.7, 0.9, 0.97)),
        "leading": _grid(norm_power=POWERS_OF_NORM, share=SHARES),
        "leading, gains": _grid(norm_power=POWERS_OF_NORM, share=SHARES, power=(-0.5, -0.25, 0.25, 0.5, 1.0)),
        "denoised": _grid(norm_power=(1.0,), level=LEVELS),
        "denoised, floor": _grid(norm_power=(1.0,), level=LEVELS, floor=(0.2, 0.3, 0.5, 0.7)),
        "signed power": _grid(norm_power=POWERS_OF_NORM, exponent=(0.25, 0.5, 0.75, 1.5)),
        "ranks": _grid(norm_power=POWERS_OF_NORM),
        "local scaling": _grid(norm_power=POWERS_OF_NORM, neighbors=NEIGHBORS),
        "norm-aware": _grid(weight=(0.1, 0.2, 0.3, 0.5)),
    }
    return [
        Candidate(family, tuple(parameters.items()), _distance(family, parameters))
        for family, parameter_sets in grid.items()
        for parameters in parameter_sets
    ]


def _grid(**values: tuple[float, ...]) -> list[dict[str, float]]:
    return [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]


def _distance(family: str, parameters: dict[str, float]) -> Distance:
    other = {"signed power": _signed_power, "ranks": _ranks, "local scaling": _local_scaling, "norm-aware": _norm_aware}
    if family in other:
        return lambda vectors, seen: other[family](vectors, seen, **parameters)
    fit = GEOMETRIES[family.split(",", maxsplit=1)[0]]
    return lambda vectors, seen: cosine_distance(fit(seen, **_integer_top(parameters)).apply(vectors))


def _integer_top(parameters: dict[str, float]) -> dict[str, Any]:
    return {name: int(value) if name == "top" else value for name, value in parameters.items()}


def cosine_distance(vectors: Floats) -> Floats:
    wide = vectors.astype(np.float64)
    return measures.distances(wide @ wide.T)


def _signed_power(vectors: Floats, seen: Floats, norm_power: float, exponent: float) -> Floats:
    """Coordinates in standard deviations, to a power that keeps their sign."""
    y = standardized(seen, norm_power).apply(vectors)
    return cosine_distance(np.sign(y) * np.abs(y) ** exponent)


def _ranks(vectors: Floats, seen: Floats, norm_power: float) -> Floats:
    """Replace each coordinate by the model's rank among all models in it: the cosine is then like Spearman's."""
    geometry = centered(seen, norm_power)
    sorted_columns = np.sort(geometry.apply(seen), axis=0)
    ranks = [
        np.searchsorted(sorted_columns[:, index], column) for index, column in enumerate(geometry.apply(vectors).T)
    ]
    return cosine_distance(np.array(ranks).T - (len(seen) - 1) / 2)


def _local_scaling(vectors: Floats, seen: Floats, norm_power: float, neighbors: int) -> Floats:
    """Centered cosines less both models' mean cosine to their nearest (CSLS; Conneau et al. 2018, arXiv 1710.04087)."""
    y = unit(centered(seen, norm_power).apply(vectors)).astype(np.float64)
    cosines = y @ y.T
    others = np.sort(np.where(np.eye(len(y), dtype=bool), -np.inf, cosines), axis=1)[:, ::-1]
    local = others[:, : int(neighbors)].mean(axis=1)
    distances = np.clip(1 - (2 * cosines - local[:, None] - local), 0, None)
    np.fill_diagonal(distances, 0)
    return distances


def _norm_aware(vectors: Floats, seen: Floats, weight: float) -> Floats:
    """Cosine distance of centered directions plus the difference of the norms' logarithms."""
    norms = np.log(np.linalg.norm(vectors, axis=1).astype(np.float64))
    return cosine_distance(centered(seen, 1.0).apply(vectors)) + weight * np.abs(norms[:, None] - norms)


@dataclass(frozen=True)
class FamilyResult:
    """One family of geometries on one representation. `chosen` has the parameters that most folds chose."""

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


def evaluate_family(vectors: Floats, pool: Embedded, family: list[Candidate]) -> tuple[Candidate, dict[str, float]]:
    """The candidate that most folds chose, and the metrics of `FamilyResult` that come from the harder pool."""
    labels = pool.class_indices
    distances = [candidate.distance(vectors, vectors) for candidate in family]
    chosen, by_fold = [], []
    for held_out in folds(labels):
        index = select_best(distances, labels, ~held_out)
        chosen.append(index)
        late = family[index].distance(vectors, vectors[~held_out])
        by_fold.append([*_scores(distances[index], labels, held_out), *_scores(late, labels, held_out)])
    names = ("held_out", "held_out_nearest", "new", "new_nearest")
    metrics = dict(zip(names, np.mean(by_fold, axis=0).tolist(), strict=True))
    metrics["best"] = max(measures.silhouette(distance, labels) for distance in distances)
    return family[int(np.bincount(chosen).argmax())], metrics


def select_candidate(family: list[Candidate], vectors: Floats, labels: Floats, inside: NDArray[np.bool_]) -> int:
    """The index of the candidate with the best silhouette among the models that are `inside`."""
    return select_best([candidate.distance(vectors, vectors) for candidate in family], labels, inside)


def select_best(distances: list[Floats], labels: Floats, inside: NDArray[np.bool_]) -> int:
    """Like `select_candidate`, from the distances of each candidate. No label of a model outside is read."""
    inside_labels = np.unique(labels[inside], return_inverse=True)[1]
    return int(
        np.argmax([measures.silhouette(distance[np.ix_(inside, inside)], inside_labels) for distance in distances])
    )


def _scores(distance: Floats, labels: NDArray[np.int64], chosen: NDArray[np.bool_]) -> tuple[float, float]:
    """Mean silhouette and 1-NN of the chosen models among all models."""
    silhouettes, nearest = measures.silhouettes(distance, labels), nearest_is_correct(distance, labels)
    return float(silhouettes[chosen].mean()), float(nearest[chosen].mean())


def folds(labels: NDArray[np.int64]) -> Iterator[NDArray[np.bool_]]:
    """Masks of the models that are held out: each pair of domains once."""
    for pair in itertools.combinations(range(labels.max() + 1), 2):
        yield np.isin(labels, pair)


def nearest_is_correct(distance: Floats, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the nearest other model has the same label, for each model."""
    away = distance + np.diag(np.full(len(distance), np.inf))
    return labels[away.argmin(axis=1)] == labels


def study() -> list[FamilyResult]:
    pool, preferred = hard()
    fifteen = easy()
    tables = [representations(embedded) for embedded in (pool, fifteen, preferred)]
    families = {
        name: list(group) for name, group in itertools.groupby(candidates(), lambda candidate: candidate.family)
    }
    rows = []
    for representation in tables[0]:
        on_pool, on_easy, on_preferred = (table[representation] for table in tables)
        for name, family in families.items():
            chosen, metrics = evaluate_family(on_pool, pool, family)
            every = np.ones(len(on_easy), bool)
            easy_scores = _scores(chosen.distance(on_easy, on_easy), fifteen.class_indices, every)
            of_preferred = measures.silhouette(chosen.distance(on_preferred, on_preferred), preferred.class_indices)
            rows.append(
                FamilyResult(
                    representation,
                    name,
                    dict(chosen.parameters),
                    easy=easy_scores[0],
                    easy_nearest=easy_scores[1],
                    preferred=of_preferred,
                    **metrics,
                )
            )
    return rows


def main(
    plots: Annotated[Path | None, typer.Option(help="Write the plots into this folder.")] = None,
    table_file: Annotated[Path | None, typer.Option("--csv", help="Write all metrics into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Evaluate all geometries on all representations."""
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


def write(path: Path, rows: list[FamilyResult]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(field.name for field in fields(FamilyResult))
        for row in sorted(rows, key=lambda row: -row.held_out):
            chosen = " ".join(f"{name}={value:g}" for name, value in row.chosen.items())
            metrics = [f"{value:.3f}" for value in list(vars(row).values())[3:]]
            lines.writerow([row.representation, row.family, chosen, *metrics])


def table(rows: list[FamilyResult]) -> Table:
    heads = ("held out", "1-NN", "new", "new 1-NN", "best", "easy", "easy 1-NN", "preferred")
    shown = Table("representation", "family", "chosen", *heads)
    for row in sorted(rows, key=lambda row: -row.held_out):
        chosen = ", ".join(f"{name} {value:g}" for name, value in row.chosen.items())
        metrics = (row.held_out, row.held_out_nearest, row.new, row.new_nearest, row.best)
        metrics += (row.easy, row.easy_nearest, row.preferred)
        shown.add_row(row.representation, row.family, chosen, *(f"{metric:.3f}" for metric in metrics))
    return shown


if __name__ == "__main__":
    typer.run(main)
