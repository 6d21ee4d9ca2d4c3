"""`python -m benchmarks.studies`: each study on pico adapters."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.studies.__main__ import app
from benchmarks.studies.probe_sets import generic_probes, probe_kinds
from benchmarks.studies.probes import probe_rows
from catalog.spaces.probes import ProbeSet, load_probes
from tests.support import recomputed
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.evaluation.pool import Pool
from workers.evaluation.representations.delta import encode

FEATURE = "delta_activations"
COMMANDS = {
    "probes": ("--feature", "delta_weighted_activations"),
    "kinds": (),
    "layers": ("--layer", "1", "--layer", "1.0"),
    "dtype": ("--dtype", "bfloat16"),
}


def study(command: str, folder: Path, base: Path, out: Path, *options: str) -> dict[str, Any]:
    probes = ("--probes", str(folder / "probes.json")) if command != "kinds" else ()
    arguments = [command, str(folder / "labels.csv"), "--base", str(base), "--out", str(out), *probes, *options]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    answer = json.loads(result.stdout)
    assert result.exit_code == ("code" in answer), result.output
    return answer


def vectors(pool: Pool, resident: ResidentBase, probes: ProbeSet, **more: Any) -> np.ndarray:
    return encode(pool, Encoder(resident, probes, [FEATURE], **more), FEATURE, 8, lambda *_: None).astype(float)


def silhouette(rows: np.ndarray, pool: Pool) -> float:
    return recomputed.silhouette(recomputed.cosine_distance(rows), np.array(pool.labels))


@pytest.mark.parametrize("command", COMMANDS)
def test_study_writes_its_rows_and_a_plot(folder: Path, base: Path, tmp_path: Path, command: str):
    answer = study(command, folder, base, tmp_path, *COMMANDS[command])
    assert json.loads((tmp_path / f"{command}.json").read_text()) == answer
    with (tmp_path / f"{command}.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert rows == [{name: str(value) for name, value in row.items()} for row in answer["rows"]]
    assert (tmp_path / f"{command}.png").read_bytes().startswith(b"\x89PNG")


def test_table_fits_in_80_columns(folder: Path, base: Path, tmp_path: Path):
    arguments = ["layers", str(folder / "labels.csv"), "--base", str(base), "--out", str(tmp_path), "--layer", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert max(len(line.rstrip()) for line in result.stdout.splitlines()[:6]) <= 80


def test_probe_rows_score_the_mean_over_the_probes(pool: Pool):
    generator = np.random.default_rng(0)
    by_probe = generator.normal(size=(4, len(pool), 5))
    rows = probe_rows(by_probe, pool)
    assert [row["probes"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        expected = silhouette(by_probe[: int(row["probes"])].mean(axis=0), pool)
        assert row["in order"] == pytest.approx(expected)
        assert row["low"] <= row["mean of choices"] <= row["high"]
    last = rows[-1]  # all four probes are the only subset of that size
    assert [last["low"], last["high"], last["mean of choices"]] == pytest.approx([last["in order"]] * 3)
    single = [silhouette(vectors, pool) for vectors in by_probe]
    assert min(single) < rows[0]["mean of choices"] < max(single)


def test_all_probes_give_the_vectors_of_the_set(
    folder: Path, base: Path, tmp_path: Path, pool: Pool, resident: ResidentBase
):
    rows = study("probes", folder, base, tmp_path)["rows"]
    expected = silhouette(vectors(pool, resident, load_probes(folder / "probes.json")), pool)
    assert rows[-1]["in order"] == pytest.approx(expected, abs=1e-5)


def test_feature_that_is_not_a_mean_over_probes_is_refused(folder: Path, base: Path, tmp_path: Path):
    assert study("probes", folder, base, tmp_path, "--feature", "delta_meaning")["code"] == "invalid_probe_set"


def test_kinds_have_five_prompts_each_and_generic_is_the_default_set(
    folder: Path, base: Path, tmp_path: Path, pool: Pool, resident: ResidentBase
):
    rows = {row["kind"]: row for row in study("kinds", folder, base, tmp_path)["rows"]}
    assert list(rows) == ["generic", "domain", "plain_text", "single_word"]
    assert all(len(probes.prompts) == 5 for probes in probe_kinds().values())
    for kind, probes in probe_kinds().items():
        assert rows[kind]["silhouette"] == pytest.approx(silhouette(vectors(pool, resident, probes), pool), abs=1e-5)


def test_generic_probes_begin_with_the_default_set():
    probes = generic_probes()
    assert len(set(probes.prompts)) == 20
    assert probes.prompts[:5] == load_probes().prompts


def test_layers_are_resolved_and_measured(folder: Path, base: Path, tmp_path: Path, pool: Pool, resident: ResidentBase):
    rows = study("layers", folder, base, tmp_path, "--layer", "0.5", "--layer", "-1", "--layer", "1")["rows"]
    assert [row["layer"] for row in rows] == [1, 2]
    probes = load_probes(folder / "probes.json")
    for row, layer in zip(rows, (1, -1), strict=True):
        expected = silhouette(vectors(pool, resident, probes, layer=layer), pool)
        assert row["silhouette"] == pytest.approx(expected, abs=1e-5)


def test_layer_out_of_range_is_refused(folder: Path, base: Path, tmp_path: Path):
    assert study("layers", folder, base, tmp_path, "--layer", "7")["code"] == "invalid_input"


def test_dtypes_are_compared_with_float32(folder: Path, base: Path, tmp_path: Path):
    exact, reduced = study("dtype", folder, base, tmp_path, "--dtype", "bfloat16")["rows"]
    assert (exact["dtype"], reduced["dtype"]) == ("float32", "bfloat16")
    assert exact["least_cosine"] == pytest.approx(1)
    assert 0.9 < reduced["least_cosine"] < 1
