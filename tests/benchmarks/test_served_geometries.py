"""The documented results of the geometries that searches could use, from the shipped vectors and in plain numpy."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.hard_pool.representations import Embedded, easy, hard, representations
from benchmarks.served_geometries import ServableResult, late_rounds, study
from catalog.geometry.transforms import DEFAULT_KINDS
from tests.support.silhouette import plain_silhouette

PAGE = Path(__file__).parents[2] / "docs" / "representation.md"


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, str], ServableResult]:
    return {(row.feature, row.kind): row for row in study()}


def halves(vectors: np.ndarray) -> np.ndarray:
    parts = np.split(vectors.astype(np.float64), 2, axis=1)
    return np.concatenate([part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts], axis=1)


def denoised(vectors: np.ndarray, level: float) -> np.ndarray:
    """From the definition: the axes of the centered halves, each multiplied by its variance's share above the noise."""
    rows = halves(vectors)
    rows -= rows.mean(axis=0)
    left, lengths, _ = np.linalg.svd(rows, full_matrices=False)
    kept = lengths**2 > 1e-9 * (lengths**2).sum()
    variances = lengths[kept] ** 2
    return left[:, kept] * lengths[kept] * np.clip(1 - level * variances.mean() / variances, 0, None)


def nearest_accuracy(vectors: np.ndarray, labels: np.ndarray) -> float:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T - 3 * np.eye(len(unit))
    return float((labels[cosines.argmax(axis=1)] == labels).mean())


def plain(pool: Embedded) -> tuple[float, float]:
    vectors = representations(pool)["delta_activations"]
    return plain_silhouette(vectors, pool.labels), nearest_accuracy(vectors, pool.labels)


def test_denoised_layers_close_a_third_of_the_gap_of_plain_vectors():
    pool, fifteen = hard()[0], easy()
    silhouette, nearest = plain(pool)
    transformed = denoised(representations(pool)["delta_layers"], 0.5)
    denoised_silhouette = plain_silhouette(transformed, pool.labels)
    assert denoised_silhouette >= silhouette + (1 - silhouette) / 3
    assert nearest_accuracy(transformed, pool.labels) >= nearest
    of_easy = denoised(representations(fifteen)["delta_layers"], 0.5)
    assert plain_silhouette(of_easy, fifteen.labels) >= plain(fifteen)[0]
    assert f"**{denoised_silhouette:.3f}**" in PAGE.read_text()


def test_defaults_are_no_worse_than_raw_in_any_order_of_arrival(
    rows: dict[tuple[str, str], ServableResult],
):
    raw_scores = rows["delta_activations", "raw"].pool
    for feature, kind in DEFAULT_KINDS.items():
        row = rows[feature, kind]
        for silhouette, nearest in (row.pool, row.arrivals, row.new_domains):
            assert silhouette > raw_scores[0]
            assert nearest > raw_scores[1] - 1e-9
        better = [
            other
            for other in rows.values()
            if other.feature == feature
            and min(other.pool[1], other.arrivals[1], other.new_domains[1]) > raw_scores[1] - 1e-9
            and other.pool[0] > row.pool[0]
        ]
        assert better == []


def test_documented_table_matches(rows: dict[tuple[str, str], ServableResult]):
    text = PAGE.read_text().replace("*", "")
    for row in rows.values():
        metrics = (row.pool, row.arrivals, row.new_domains, row.easy, row.preferred)
        line = " | ".join(f"{silhouette:.3f} {nearest:.3f}" for silhouette, nearest in metrics)
        assert re.search(rf"\| {row.kind} \| {re.escape(line)} \|", text), line


def test_every_model_is_late_once():
    labels = np.repeat(np.arange(3), 4)
    late = list(late_rounds(labels))
    assert [int(mask.sum()) for mask in late] == [3] * 4
    assert sum(late).tolist() == [1] * 12
