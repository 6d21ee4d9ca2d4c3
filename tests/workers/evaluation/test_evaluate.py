"""`deltadex evaluate` on pico adapters, from the labels file to the scorecard."""

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

METRICS = ("silhouette", "silhouette_centered", "nearest", "adjusted_rand")


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


def test_table_has_all_representations_and_separates_published_silhouettes(run: tuple[Result, Path]):
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
def test_metrics_match_the_stored_vectors(run: tuple[Result, Path], card: dict[str, Any], name: str):
    expected = recomputed.metrics(run[1] / "vectors" / f"{name}.npz")
    [line] = [line for line in card["representations"] if line["name"] == name]
    for metric in METRICS:
        estimate = line["metrics"][metric]
        assert estimate["value"] == pytest.approx(expected[metric], abs=1e-5), metric
        assert estimate["low"] <= estimate["high"]


def test_printed_metrics_match_the_json_file(run: tuple[Result, Path], card: dict[str, Any]):
    for line in card["representations"]:
        [printed] = [row for row in run[0].stdout.splitlines() if row.startswith(line["name"].rpartition("_")[0] + "_ ")
                     and f"{line['metrics']['silhouette']['value']:.3f}" in row]  # fmt: skip
        for metric in METRICS:
            assert f" {line['metrics'][metric]['value']:.3f}" in printed


def test_csv_and_json_agree(run: tuple[Result, Path], card: dict[str, Any]):
    with (run[1] / "scorecard.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["representation"] for row in rows] == list(REPRESENTATIONS)
    for row, line in zip(rows, card["representations"], strict=True):
        for metric in METRICS:
            assert float(row[metric]) == line["metrics"][metric]["value"]
        assert (int(row["dimension"]), float(row["bytes"])) == (line["dimension"], line["nbytes"])


def test_scorecard_includes_models_and_settings(card: dict[str, Any]):
    assert [model["label"] for model in card["models"]] == list(LABELS)
    assert card["bootstrap"] == {"resamples": 50, "seed": 0, "coverage": 0.95}
    assert card["published"]["delta_activations"]["Llama-3.1-8B"] == 0.645
    assert "paper's own" in card["published"]["source"]


def test_every_representation_has_a_plot(run: tuple[Result, Path]):
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
    assert [line["metrics"] for line in cards[0]] == [line["metrics"] for line in cards[1]]


def test_missing_representation_is_listed_with_its_reason(
    folder: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sentence_encoder, "PACKAGE", "no_such_package")
    chosen = ("--only", "output_sentences", "--only", "delta_activations", "--json")
    result = evaluate(folder / "labels.csv", base, tmp_path, *chosen)
    assert result.exit_code == 0
    missing, computed = json.loads(result.stdout)["representations"]
    assert missing["metrics"] is None
    assert "deltadex[evaluate]" in missing["missing"]
    assert computed["missing"] is None


def test_scorecard_without_any_metrics_exits_with_1(base: Path, folder: Path, tmp_path: Path):
    full = pico.make_base(tmp_path / "full", seed=1)
    (tmp_path / "probes.json").write_text('["Hello."]')
    (tmp_path / "labels.csv").write_text(
        f"{full},red\n{folder / 'm1'},red\n{folder / 'm2'},blue\n{folder / 'm3'},blue\n"
    )
    result = evaluate(tmp_path / "labels.csv", base, tmp_path / "out", "--only", "flattened_weights")
    assert result.exit_code == 1
    assert "full fine-tune" in result.stdout


@pytest.mark.parametrize(
    ("labels", "options", "code", "message"),
    [
        ("m0,red\nm1\n", (), "invalid_labels", "Line 2 of bad.csv"),
        ("m0,red\nm1,red\n", (), "invalid_labels", "All models are labeled red"),
        ("m0,red\nm1,red\nm2,blue\n", (), "invalid_labels", "blue, in line 3, has one model"),
        ("m0,red\nm1,red\nm2,blue\nwho is this,blue\n", (), "invalid_labels", "Line 4 of bad.csv"),
        ("m0,red\nm1,red\nm2,blue\nm3,blue\n", ("--only", "taste"), "unknown_feature", "taste"),
        ("m0,red\nm1,red\nm2,blue\nm3,blue\n", ("--dtype", "int4"), "unsupported_base", "int4"),
    ],
)
def test_errors_are_reported_with_their_code(
    folder: Path, base: Path, tmp_path: Path, labels: str, options: tuple[str, ...], code: str, message: str
):
    (folder / "bad.csv").write_text(labels)
    result = evaluate(folder / "bad.csv", base, tmp_path, *options, "--json")
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert (answer["code"], message in answer["message"]) == (code, True)


def test_unwritable_output_folder_is_reported_first(folder: Path, base: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    result = evaluate(folder / "labels.csv", base, tmp_path / "file" / "out")
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


def test_pool_of_four_models_is_scored(folder: Path, base: Path, tmp_path: Path):
    (folder / "four.csv").write_text("m0,red\nm1,red\nm2,blue\nm3,blue\n")
    result = evaluate(folder / "four.csv", base, tmp_path, "--only", "delta_activations")
    assert result.exit_code == 0, result.stderr
    with np.load(tmp_path / "vectors" / "delta_activations.npz") as stored:
        assert stored["names"].tolist() == ["m0", "m1", "m2", "m3"]
