"""`deltadex evaluate` on pico adapters, from the labels file to the figures."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.support import pico, recomputed
from tests.support.evaluation import LABELS
from workers.evaluation import sentence_encoder
from workers.evaluation.evaluate import app
from workers.evaluation.representations import REPRESENTATIONS

MEASURES = ("silhouette", "silhouette_centred", "nearest", "adjusted_rand")


def evaluate(labels: Path, base: Path, out: Path, *options: str) -> Result:
    probes = ("--probes", str(labels.parent / "probes.json"))
    arguments = [str(labels), "--base", str(base), "--out", str(out), "--resamples", "50", *probes, *options]
    return CliRunner().invoke(app, arguments)


@pytest.fixture(scope="module")
def run(folder: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    out = tmp_path_factory.mktemp("out") / "deep"
    options = ("--answer-tokens", "3", "--mask-share", "0.1", "--min-cluster", "2")
    return evaluate(folder / "labels.csv", base, out, *options), out


@pytest.fixture(scope="module")
def card(run: tuple[Result, Path]) -> dict[str, Any]:
    return json.loads((run[1] / "scorecard.json").read_text())


def test_the_table_has_all_seven_and_the_papers_called_the_papers(run: tuple[Result, Path]):
    result, _ = run
    assert result.exit_code == 0, result.stderr
    measured, paper = result.stdout.split("in the paper")
    for name in REPRESENTATIONS:
        first, _, last = name.rpartition("_")
        assert f"{first}_" in measured
        assert last in measured
    for figure in ("0.645", "0.545", "0.653", "-0.043", "0.190", "0.087"):
        assert figure in paper
        assert figure not in measured
    assert max(len(line.rstrip()) for line in measured.splitlines()) <= 80


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_the_figures_are_those_of_the_stored_vectors(run: tuple[Result, Path], card: dict[str, Any], name: str):
    expected = recomputed.figures(run[1] / "vectors" / f"{name}.npz")
    [line] = [line for line in card["representations"] if line["name"] == name]
    for measure in MEASURES:
        found = line["figures"][measure]
        assert found["value"] == pytest.approx(expected[measure], abs=1e-5), measure
        assert found["low"] <= found["high"]


def test_the_printed_figures_are_the_stored_ones(run: tuple[Result, Path], card: dict[str, Any]):
    for line in card["representations"]:
        [printed] = [row for row in run[0].stdout.splitlines() if row.startswith(line["name"].rpartition("_")[0] + "_ ")
                     and f"{line['figures']['silhouette']['value']:.3f}" in row]  # fmt: skip
        for measure in MEASURES:
            assert f" {line['figures'][measure]['value']:.3f}" in printed


def test_csv_and_json_agree(run: tuple[Result, Path], card: dict[str, Any]):
    with (run[1] / "scorecard.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["representation"] for row in rows] == list(REPRESENTATIONS)
    for row, line in zip(rows, card["representations"], strict=True):
        for measure in MEASURES:
            assert float(row[measure]) == line["figures"][measure]["value"]
        assert (int(row["dimension"]), float(row["bytes"])) == (line["dimension"], line["nbytes"])


def test_models_base_and_settings_are_told(card: dict[str, Any]):
    assert [model["label"] for model in card["models"]] == list(LABELS)
    assert card["bootstrap"] == {"resamples": 50, "seed": 0, "coverage": 0.95}
    assert card["published"]["delta_activations"]["Llama-3.1-8B"] == 0.645
    assert "paper's own" in card["published"]["source"]


def test_every_representation_is_drawn(run: tuple[Result, Path]):
    for name in REPRESENTATIONS:
        content = (run[1] / "plots" / f"{name}.png").read_bytes()
        assert content.startswith(b"\x89PNG")
        assert 5_000 < len(content) < 200_000


def test_the_same_seed_gives_the_same_scorecard(folder: Path, base: Path, tmp_path: Path):
    cards = []
    for name in ("one", "two"):
        evaluate(folder / "labels.csv", base, tmp_path / name, "--only", "flattened_weights", "--only", "delta_logits")
        cards.append(json.loads((tmp_path / name / "scorecard.json").read_text())["representations"])
    assert [line["name"] for line in cards[0]] == ["flattened_weights", "delta_logits"]
    assert [line["figures"] for line in cards[0]] == [line["figures"] for line in cards[1]]


def test_a_representation_that_the_pool_cannot_have_is_there_with_its_reason(
    folder: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sentence_encoder, "PACKAGE", "no_such_package")
    chosen = ("--only", "output_sentences", "--only", "delta_activations", "--json")
    result = evaluate(folder / "labels.csv", base, tmp_path, *chosen)
    assert result.exit_code == 0
    missing, there = json.loads(result.stdout)["representations"]
    assert missing["figures"] is None
    assert "deltadex[evaluate]" in missing["missing"]
    assert there["missing"] is None


def test_a_scorecard_without_a_figure_is_a_failure(base: Path, folder: Path, tmp_path: Path):
    full = pico.make_base(tmp_path / "full", seed=1)
    (tmp_path / "probes.json").write_text('["Hello."]')
    (tmp_path / "labels.csv").write_text(
        f"{full},red\n{folder / 'm1'},red\n{folder / 'm2'},blue\n{folder / 'm3'},blue\n"
    )
    result = evaluate(tmp_path / "labels.csv", base, tmp_path / "out", "--only", "flattened_weights")
    assert result.exit_code == 1
    assert "full fine-tune" in result.stdout


@pytest.mark.parametrize(
    ("labels", "options", "code", "told"),
    [
        ("m0,red\nm1\n", (), "invalid_labels", "Line 2 of bad.csv"),
        ("m0,red\nm1,red\n", (), "invalid_labels", "All models are labelled red"),
        ("m0,red\nm1,red\nm2,blue\n", (), "invalid_labels", "blue, in line 3, has one model"),
        ("m0,red\nm1,red\nm2,blue\nwho is this,blue\n", (), "invalid_labels", "Line 4 of bad.csv"),
        ("m0,red\nm1,red\nm2,blue\nm3,blue\n", ("--only", "taste"), "unknown_feature", "taste"),
        ("m0,red\nm1,red\nm2,blue\nm3,blue\n", ("--dtype", "int4"), "unsupported_base", "int4"),
    ],
)
def test_errors_end_with_their_code(
    folder: Path, base: Path, tmp_path: Path, labels: str, options: tuple[str, ...], code: str, told: str
):
    (folder / "bad.csv").write_text(labels)
    result = evaluate(folder / "bad.csv", base, tmp_path, *options, "--json")
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert (answer["code"], told in answer["message"]) == (code, True)


def test_a_place_that_cannot_be_written_is_told_before_any_work(folder: Path, base: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    result = evaluate(folder / "labels.csv", base, tmp_path / "file" / "out")
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


def test_small_pools_have_clusters_and_maps_too(folder: Path, base: Path, tmp_path: Path):
    (folder / "four.csv").write_text("m0,red\nm1,red\nm2,blue\nm3,blue\n")
    result = evaluate(folder / "four.csv", base, tmp_path, "--only", "delta_activations")
    assert result.exit_code == 0, result.stderr
    with np.load(tmp_path / "vectors" / "delta_activations.npz") as stored:
        assert stored["names"].tolist() == ["m0", "m1", "m2", "m3"]
