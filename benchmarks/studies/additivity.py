"""Whether what a model learned of two things is the sum of what two models learned of one each.

The paper's section 4.3 tunes on mixtures and compares. A mixture's label here is its parts' labels with a plus between
them; a part's vector is the mean of the models that have its label.
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
    """Mixtures, (m, d), their parts, (p, d), and which two parts each is made of."""

    mixtures: np.ndarray
    parts: np.ndarray
    names: Sequence[str]  # of the parts
    pairs: Sequence[tuple[int, int]]


def check_mixtures(labeled: list[LabeledModel]) -> None:
    """Raises `InvalidLabels` where no mixture, or a part of one, or a third part to compare with is missing."""
    parts = {each.label for each in labeled if "+" not in each.label}
    mixtures = [each for each in labeled if "+" in each.label]
    if not mixtures or len(parts) < 3:
        raise InvalidLabels(
            f"{len(parts)} parts and {len(mixtures)} mixtures (FIRST+SECOND): three and one are needed."
        )
    for each in mixtures:
        names = each.label.split("+")
        if len(names) != 2 or names[0] == names[1] or not set(names) <= parts:
            raise InvalidLabels(f"{each.label}, in line {each.line}, is not made of two of {', '.join(sorted(parts))}.")


def study_additivity(pool: Pool, vectors: np.ndarray, feature: str) -> Study:
    """A row for each mixture in each geometry, and each geometry's mean."""
    rows = additivity_rows(split_mixtures(pool, vectors))
    means = [row for row in rows if row["mixture"] == "mean"]
    bars = {name: [row[name] for row in means] for name in ("part", "sum", "best")}
    groups = [row["geometry"] for row in means]
    draw = partial(plots.plot_bars, title="mean cosine of a mixture to", groups=groups, bars=bars)
    return Study("additivity", rows, draw, {"feature": feature}, SHOWN)


def split_mixtures(pool: Pool, vectors: np.ndarray) -> Mixtures:
    """The pool's vectors, (n, d), as mixtures and parts."""
    names = sorted({label for label in pool.labels if "+" not in label})
    labels = np.array(pool.labels)
    parts = np.stack([vectors[labels == name].mean(axis=0) for name in names]).astype(np.float64)
    mixed = [number for number, label in enumerate(pool.labels) if "+" in label]
    pairs = []
    for number in mixed:
        first, second = pool.labels[number].split("+")
        pairs.append((names.index(first), names.index(second)))
    return Mixtures(vectors[mixed].astype(np.float64), parts, names, pairs)


def additivity_rows(found: Mixtures) -> list[dict[str, Any]]:
    rows = []
    for name, geometry in GEOMETRIES.items():
        mixtures, parts = geometry(found.mixtures, found.parts)
        own = [_row(name, *each, parts, found.names) for each in zip(mixtures, found.pairs, strict=True)]
        numbers = [column for column, value in own[0].items() if not isinstance(value, str)]
        mean = {column: float(np.mean([row[column] for row in own])) for column in numbers}
        rows += [*own, {"geometry": name, "mixture": "mean", **mean}]
    return rows


def _row(
    geometry: str, mixture: np.ndarray, pair: tuple[int, int], parts: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """One mixture's figures.

    `part` is the cosine to the nearer part, `sum` to the parts' sum, `best` to that with the best weights, of which
    `share` is the first part's. `rank` is the true pair's among all sums of two, `rank of all` among these and the
    parts alone; `lead` is how much nearer the true sum is than the best other. The sum comes nearest when it is
    multiplied by `scale`.
    """
    first, second = parts[pair[0]], parts[pair[1]]
    total = first + second
    cosine = partial(_cosine, mixture)
    others = [cosine(parts[i] + parts[j]) for i, j in combinations(range(len(parts)), 2) if {i, j} != set(pair)]
    alone = [cosine(part) for part in parts]
    own = cosine(total)
    weights = _best_weights(mixture, first, second)
    return {
        "geometry": geometry,
        "mixture": f"{names[pair[0]]}+{names[pair[1]]}",
        "first": cosine(first),
        "second": cosine(second),
        "part": max(cosine(first), cosine(second)),
        "sum": own,
        "rank": 1 + sum(other > own for other in others),
        "lead": own - max(others),
        "rank of all": 1 + sum(other > own for other in (*others, *alone)),
        "best": cosine(weights[0] * first + weights[1] * second),
        "share": float(weights[0] / weights.sum()) if weights.sum() > 0 else 0.0,
        "scale": float(mixture @ total / (total @ total)),
    }


def _best_weights(mixture: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The least squares fit of a mixture by its parts, no weight below zero, (2,)."""
    from scipy.optimize import nnls

    weights, _ = nnls(np.stack([first, second], axis=1), mixture)
    return np.asarray(weights)


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    norms = np.linalg.norm(one) * np.linalg.norm(other)
    return float(one @ other / norms) if norms > 0 else 0.0


def _raw(mixtures: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return mixtures, parts


def _unit(mixtures: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every term as long as every other."""
    return tuple(each / np.linalg.norm(each, axis=1, keepdims=True) for each in (mixtures, parts))  # type: ignore[return-value]


def _centered(mixtures: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What all parts have in common taken away."""
    mean = parts.mean(axis=0)
    return mixtures - mean, parts - mean


def _centered_unit(mixtures: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _centered(*_unit(mixtures, parts))


def _root(mixtures: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Terms as long as the roots of their norms: halfway between raw and unit."""
    return tuple(each / np.sqrt(np.linalg.norm(each, axis=1, keepdims=True)) for each in (mixtures, parts))  # type: ignore[return-value]


GEOMETRIES: dict[str, Geometry] = {
    "raw": _raw,
    "unit": _unit,
    "root": _root,
    "centered": _centered,
    "centered_unit": _centered_unit,
}
