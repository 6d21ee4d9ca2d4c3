"""The scorecard in docs/evaluation.md, against the inner products from which it was computed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support import recomputed
from workers.evaluation.representations import REPRESENTATIONS

DOCS = Path(__file__).parents[3] / "docs"
MEASURES = ("silhouette", "silhouette_centred", "nearest", "adjusted_rand")


def recomputed_figures(name: str) -> list[float]:
    with np.load(DOCS / "evaluation" / "grams.npz") as stored:
        labels, gram, clusters = stored["labels"], stored[f"{name}.gram"], stored[f"{name}.clusters"]
    values, axes = np.linalg.eigh(gram)
    vectors = axes * np.sqrt(np.clip(values, 0, None))  # some vectors that have these inner products
    distance, shifted = (recomputed.cosine_distance(each) for each in (vectors, vectors - vectors.mean(axis=0)))
    silhouettes = [recomputed.silhouette(each, labels) for each in (distance, shifted)]
    return [*silhouettes, recomputed.nearest(distance, labels), recomputed.rand(labels, clusters)]


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_the_documented_figures_of_the_example_pool_are_those_of_its_vectors(name: str):
    expected = recomputed_figures(name)
    [row] = [line for line in (DOCS / "evaluation.md").read_text().splitlines() if line.startswith(f"| `{name}` | 0.")]
    told = [float(cell.split()[0]) for cell in row.split("|")[2:6]]
    assert told == pytest.approx(expected, abs=6e-4)
    [line] = [
        line
        for line in json.loads((DOCS / "evaluation" / "scorecard.json").read_text())["representations"]
        if line["name"] == name
    ]
    assert [line["figures"][measure]["value"] for measure in MEASURES] == pytest.approx(expected, abs=1e-6)


def test_every_image_is_there_and_small():
    for part in (DOCS / "evaluation.md").read_text().split("](images/")[1:]:
        assert (DOCS / "images" / part.split(")")[0]).stat().st_size < 200_000
