"""Whether the vector of a model that was trained on two domains is the sum of the vectors of both domains.

Section 4.3 of the paper compares models trained on mixtures. Here, the label of a mixture consists of the labels of its
parts, joined by a plus; the vector of a part is the mean of the vectors of the models with its label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from benchmarks.studies import plots
from benchmarks.studies.study import Study
from catalog.errors import InvalidLabels
from workers.evaluation.labels import LabeledModel
from workers.evaluation.pool import Pool

SHOWN = ("geometry", "mixture", "part", "sum", "rank", "lead", "best", "share", "scale")
Geometry = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Mixtures:
    """Mixtures, (m, d), parts, (p, d), and the indices of the two parts of each mixture."""

    mixtures: np.ndarray
    parts: np.ndarray
    part_names: Sequence[str]
    pairs: Sequence[tuple[int, int]]


def check_mixtures(labeled: list[LabeledModel]) -> None:
    """Raise `InvalidLabels` unless there are a mixture, the parts of every mixture, and a third part to compare to."""
    parts = {model.label for model in labeled if "+" not in model.label}
    mixtures = [model for model in labeled if "+" in model.label]
    if not mixtures or len(parts) < 3:
        raise InvalidLabels(
            f"The file has {len(parts)} parts and {len(mixtures)} mixtures (FIRST+SECOND); use at least three and one."
        )
    for mixture in mixtures:
        names = mixture.label.split("+")
        if len(names) != 2 or names[0] == names[1] or not set(names) <= parts:
            raise InvalidLabels(
                f"{mixture.label}, in line {mixture.line}, is not a combination of two of {', '.join(sorted(parts))}."
            )


def study_additivity(pool: Pool, vectors: np.ndarray, feature: str) -> Study:
    """A row per mixture and geometry, and the mean of each geometry."""
    rows = additivity_rows(split_mixtures(pool, vectors))
    means = [row for row in rows if row["mixture"] == "mean"]
    bars = {name: [row[name] for row in means] for name in ("part", "sum", "best")}
    groups = [row["geometry"] for row in means]
    draw = partial(plots.plot_bars, title="mean cosine of a mixture to", groups=groups, bars=bars)
    return Study("additivity", rows, draw, {"feature": feature}, SHOWN)


def split_mixtures(pool: Pool, vectors: np.ndarray) -> Mixtures:
    """Divide the vectors of the pool, (n, d), into mixtures and parts."""
    names = sorted({label for label in pool.labels if "+" not in label})
    labels = np.array(pool.labels)
    parts = np.stack([vectors[labels == name].mean(axis=0) for name in names]).astype(np.float64)
    mixture_indices = [number for number, label in enumerate(pool.labels) if "+" in label]
    pairs = []
    for number in mixture_indices:
        first, second = pool.labels[number].split("+")
        pairs.append((names.index(first), names.index(second)))
    return Mixtures(vectors[mixture_indices].astype(np.float64), parts, names, pairs)


def additivity_rows(data: Mixtures) -> list[dict[str, Any]]:
    rows = []
    for name, geometry in GEOMETRIES.items():
        mixtures, parts = geometry(data.mixtures, data.parts)
        mixture_rows = [
            _row(name, mixture, pair, parts, data.part_names)
            for mixture, pair in zip(mixtures, data.pairs, strict=True)
        ]
        numeric = [column for column, value in mixture_rows[0].items() if not isinstance(value, str)]
        mean = {column: float(np.mean([row[column] for row in mixture_rows])) for column in numeric}
        rows += [*mixture_rows, {"geometry": name, "mixture": "mean", **mean}]
    return rows


def _row(
    geometry: str, mixture: np.ndarray, pair: tuple[int, int], parts: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """The row of one mixture.

    `part` is the cosine to the nearer part, `sum` the cosine to the sum of the parts, and `best` the cosine to the sum
    with the best weights, where `share` is the relative weight of the first part. `rank` is the rank of the true pair
    among all sums of two parts, `rank of all` its rank among these and the single parts. `lead` is the cosine to the
    true sum minus that to the best other sum. `scale` is the factor of the sum that comes nearest to the mixture.
    """
    first, second = parts[pair[0]], parts[pair[1]]
    total = first + second
    cosine = partial(_cosine, mixture)
    others = [cosine(parts[i] + parts[j]) for i, j in combinations(range(len(parts)), 2) if {i, j} != set(pair)]
    singles = [cosine(part) for part in parts]
    cosine_to_sum = cosine(total)
    weights = _best_weights(mixture, first, second)
    return {
        "geometry": geometry,
        "mixture": f"{names[pair[0]]}+{names[pair[1]]}",
        "first": cosine(first),
        "second": cosine(second),
        "part": max(cosine(first), cosine(second)),
        "sum": cosine_to_sum,
        "rank": 1 + sum(other > cosine_to_sum for other in others),
        "lead": cosine_to_sum - max(others),
        "rank of all": 1 + sum(other > cosine_to_sum for other in (*others, *singles)),
        "best": cosine(weights[0] * first + weights[1] * second),
        "share": float(weights[0] / weights.sum()) if weights.sum() > 0 else 0.0,
        "scale": float(mixture @ total / (total @ total)),
    }


def _best_weights(mixture: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The weights of the non-negative least squares fit of a mixture by its parts, (2,)."""
    from scipy.optimize import nnls

    weights, _ = nnls(np.stack([first, second], axis=1), mixture)
    return np.asarray(weights)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms > 0 else 0.0


def _raw(mixtures: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return mixtures, parts


def _unit(mixtures: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All vectors normalized to length 1."""
    return _scaled(mixtures, 1.0), _scaled(parts, 1.0)


def _centered(mixtures: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the parts subtracted from all vectors."""
    mean = parts.mean(axis=0)
    return mixtures - mean, parts - mean


def _centered_unit(mixtures: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _centered(*_unit(mixtures, parts))


def _root(mixtures: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All vectors scaled to the square root of their norm, which is between raw and unit."""
    return _scaled(mixtures, 0.5), _scaled(parts, 0.5)


def _scaled(vectors: np.ndarray, power: float) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) ** power


GEOMETRIES: dict[str, Geometry] = {
    "raw": _raw,
    "unit": _unit,
    "root": _root,
    "centered": _centered,
    "centered_unit": _centered_unit,
}
