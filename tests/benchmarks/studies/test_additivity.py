from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.studies.__main__ import app
from benchmarks.studies.additivity import GEOMETRIES, additivity_rows, check_mixtures, split_mixtures
from catalog.errors import InvalidLabels
from tests.support import pico
from workers.evaluation.labels import LabeledModel
from workers.evaluation.pool import Pool

LABELS = ("a", "b", "c", "a", "a+c", "b+c")


@pytest.fixture
def pool_and_vectors() -> tuple[Pool, np.ndarray]:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(6, 20))
    a = (vectors[0] + vectors[3]) / 2
    vectors[4] = 0.5 * (a + vectors[2])
    vectors[5] = vectors[1] + 0.25 * vectors[2] + 0.01 * generator.normal(size=20)
    return Pool(tuple("uvwxyz"), LABELS, (Path(),) * 6), vectors


def row(pool_and_vectors: tuple[Pool, np.ndarray], geometry: str, mixture: str) -> dict:
    rows = additivity_rows(split_mixtures(*pool_and_vectors))
    [wanted] = [row for row in rows if (row["geometry"], row["mixture"]) == (geometry, mixture)]
    return wanted


def test_half_of_a_sum_has_cosine_one_and_scale_one_half(pool_and_vectors: tuple[Pool, np.ndarray]):
    exact = row(pool_and_vectors, "raw", "a+c")
    assert exact["sum"] == pytest.approx(1)
    assert exact["scale"] == pytest.approx(0.5)
    assert (exact["rank"], exact["rank of all"], exact["share"]) == (1, 1, pytest.approx(0.5))


def test_cosines_are_to_the_mean_vectors_of_the_parts(pool_and_vectors: tuple[Pool, np.ndarray]):
    vectors = pool_and_vectors[1]
    exact = row(pool_and_vectors, "raw", "a+c")

    def cosine(one: np.ndarray, other: np.ndarray) -> float:
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    a, c = (vectors[0] + vectors[3]) / 2, vectors[2]
    assert exact["first"] == pytest.approx(cosine(vectors[4], a))
    assert exact["second"] == pytest.approx(cosine(vectors[4], c))
    assert exact["lead"] == pytest.approx(
        1 - max(cosine(vectors[4], a + vectors[1]), cosine(vectors[4], vectors[1] + c))
    )


def test_unequal_weights_are_fitted(pool_and_vectors: tuple[Pool, np.ndarray]):
    uneven = row(pool_and_vectors, "raw", "b+c")
    assert uneven["share"] == pytest.approx(0.8, abs=0.02)
    assert uneven["best"] > uneven["sum"]
    assert uneven["part"] == max(uneven["first"], uneven["second"])


def test_rank_of_all_counts_a_single_part_that_is_nearer(pool_and_vectors: tuple[Pool, np.ndarray]):
    pool, vectors = pool_and_vectors
    vectors[:4] = np.eye(20)[[0, 1, 2, 0]]
    vectors[5] = vectors[1] + 0.3 * vectors[2]
    uneven = row((pool, vectors), "raw", "b+c")
    assert (uneven["rank"], uneven["rank of all"]) == (1, 2)


def test_every_geometry_has_a_mean_row(pool_and_vectors: tuple[Pool, np.ndarray]):
    rows = additivity_rows(split_mixtures(*pool_and_vectors))
    assert [row["geometry"] for row in rows if row["mixture"] == "mean"] == list(GEOMETRIES)
    sums = [row["sum"] for row in rows if row["geometry"] == "unit" and row["mixture"] != "mean"]
    assert row(pool_and_vectors, "unit", "mean")["sum"] == pytest.approx(np.mean(sums))


def test_geometries_transform_as_documented():
    generator = np.random.default_rng(1)
    mixtures, parts = generator.normal(size=(2, 7)), generator.normal(size=(3, 7))
    unit = GEOMETRIES["unit"](mixtures, parts)[1]
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1)
    root = GEOMETRIES["root"](mixtures, parts)[1]
    np.testing.assert_allclose(np.linalg.norm(root, axis=1), np.sqrt(np.linalg.norm(parts, axis=1)))
    shifted, centered = GEOMETRIES["centered"](mixtures, parts)
    np.testing.assert_allclose(centered.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(shifted, mixtures - parts.mean(axis=0))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("a", "b", "c"), "3 parts and 0 mixtures"),
        (("a", "b", "a+b"), "2 parts and 1 mixtures"),
        (("a", "b", "c", "a+d"), "a\\+d, in line 4"),
        (("a", "b", "c", "a+a"), "a\\+a, in line 4"),
        (("a", "b", "c", "a+b+c"), "a\\+b\\+c, in line 4"),
    ],
)
def test_invalid_mixture_labels_are_refused(labels: tuple[str, ...], message: str):
    with pytest.raises(InvalidLabels, match=message):
        check_mixtures([LabeledModel(f"m{line}", label, line) for line, label in enumerate(labels, 1)])


def test_command_writes_and_prints_its_rows(base: Path, folder: Path, tmp_path: Path):
    for seed, name in enumerate(("a", "b", "c", "ab")):
        pico.make_adapter(tmp_path / name, seed=seed)
    (tmp_path / "mixtures.csv").write_text("a,a\nb,b\nc,c\nab,a+b\n")
    probes = ["--probes", str(folder / "probes.json")]
    arguments = ["additivity", str(tmp_path / "mixtures.csv"), "--base", str(base), "--out", str(tmp_path), *probes]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    rows = json.loads((tmp_path / "additivity.json").read_text())["rows"]
    assert len(rows) == 2 * len(GEOMETRIES)
    assert f"{rows[0]['sum']:.3f}" in result.stdout
    assert max(len(line.rstrip()) for line in result.stdout.splitlines()[:5]) <= 80
