"""How near models of different clusters are."""

from __future__ import annotations

import numpy as np
import pytest

from catalog.clusters import quality
from catalog.clusters.quality import unrelated_similarity


def rows_of_three_groups(each: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows (3 * each, 32) that share a direction, as the models of one base do, and their labels."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), each)
    rows = np.eye(3, 32)[labels] + 0.1 * random.standard_normal((3 * each, 32)) + np.eye(1, 32, 5)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def greatest_to_other_clusters(unit: np.ndarray, labels: np.ndarray) -> np.ndarray:
    cosines = np.where(labels[:, None] == labels, -1, unit @ unit.T)
    return np.quantile(cosines.max(axis=1), 0.9)


def test_unrelated_similarity_is_reached_by_one_model_in_ten():
    unit, labels = rows_of_three_groups()
    assert unrelated_similarity(unit, labels, 0) == pytest.approx(greatest_to_other_clusters(unit, labels), abs=1e-6)


def test_noise_belongs_to_no_cluster():
    unit, labels = rows_of_three_groups()
    strays = np.concatenate([unit, unit[:1]])
    assert unrelated_similarity(strays, np.append(labels, -1), 0) == unrelated_similarity(unit, labels, 0)


def test_sample_is_compared_with_all_rows(monkeypatch: pytest.MonkeyPatch):
    unit, labels = rows_of_three_groups(200)
    exact = unrelated_similarity(unit, labels, 0)
    monkeypatch.setattr(quality, "UNRELATED_SAMPLE", 150)
    monkeypatch.setattr(quality, "BLOCK_ROWS", 64)
    assert unrelated_similarity(unit.astype(np.float16), labels, 0) == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("labels", [[-1, -1, -1], [0, 0, -1]])
def test_fewer_than_two_clusters_are_not_compared(labels: list[int]):
    assert unrelated_similarity(np.eye(3, dtype=np.float32), np.array(labels), 0) is None


def test_adjusted_rand_of_cells_needs_no_table():
    clusters = 200_000  # a table of them would have 320 GB
    row = np.concatenate([np.arange(clusters), np.arange(clusters)])
    column = np.concatenate([np.arange(clusters), np.roll(np.arange(clusters), 1)])
    counts = np.full(2 * clusters, 3)
    both, expected = 2 * clusters * 3, (clusters * 15) ** 2 / (6 * clusters * (6 * clusters - 1) / 2)
    value = quality.adjusted_rand_of_cells(row, column, counts)
    assert value == pytest.approx((both - expected) / (clusters * 15 - expected))
