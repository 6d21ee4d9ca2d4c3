"""The scorecard in docs/evaluation.md agrees with the inner products that it was computed from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support import recomputed
from workers.evaluation.representations import REPRESENTATIONS

DOCS = Path(__file__).parents[3] / "docs"
METRICS = ("silhouette", "silhouette_centered", "nearest", "adjusted_rand")


def recomputed_metrics(name: str) -> list[float]:
    with np.load(DOCS / "evaluation" / "grams.npz") as stored:
        labels, gram, clusters = stored["labels"], stored[f"{name}.gram"], stored[f"{name}.clusters"]
    values, axes = np.linalg.eigh(gram)
    vectors = axes * np.sqrt(np.clip(values, 0, None))  # vectors with these inner products
    distance, centered = (recomputed.cosine_distance(rows) for rows in (vectors, vectors - vectors.mean(axis=0)))
    silhouettes = [recomputed.silhouette(matrix, labels) for matrix in (distance, centered)]
    return [*silhouettes, recomputed.nearest(distance, labels), recomputed.rand(labels, clusters)]


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_documented_scorecard_matches_the_stored_inner_products(name: str):
    expected = recomputed_metrics(name)
    [row] = [line for line in (DOCS / "evaluation.md").read_text().splitlines() if line.startswith(f"| `{name}` | 0.")]
    documented = [float(cell.split()[0]) for cell in row.split("|")[2:6]]
    assert documented == pytest.approx(expected, abs=6e-4)
    [line] = [
        line
        for line in json.loads((DOCS / "evaluation" / "scorecard.json").read_text())["representations"]
        if line["name"] == name
    ]
    assert [line["metrics"][measure]["value"] for measure in METRICS] == pytest.approx(expected, abs=1e-6)


def test_every_image_exists_and_is_small():
    for text in (DOCS / "evaluation.md").read_text().split("](images/")[1:]:
        assert (DOCS / "images" / text.split(")")[0]).stat().st_size < 200_000
