"""Tests of `python -m workers.embed`, which computes vectors without servers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.support import pico
from workers.embed import app
from workers.finetunes.content import content_sha

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico.make_base(tmp_path_factory.mktemp("bases") / "pico")


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return [pico.make_adapter(folder / name, seed=seed) for seed, name in enumerate(("one", "two", "three"))]


def embed(base: Path, out: Path, folders: list[Path], *options: str) -> Result:
    return CliRunner().invoke(app, ["--base", str(base), "--out", str(out), *options, *map(str, folders)])


def test_output_file_contains_names_vectors_and_space(base: Path, adapters: list[Path], tmp_path: Path):
    assert embed(base, tmp_path / "v.npz", adapters).exit_code == 0
    with np.load(tmp_path / "v.npz") as output:
        assert output["names"].tolist() == ["one", "two", "three"]
        assert output["vectors"].shape == (3, pico.HIDDEN)
        assert output["vectors"].dtype == np.float32
        space = json.loads(str(output["space"]))
    assert (space["feature"], space["layer"], space["dtype"]) == ("delta_activations", -1, "float32")
    assert (space["base_repo"], space["base_sha"]) == ("pico", content_sha(base))


def test_json_summary_is_one_line(base: Path, adapters: list[Path], tmp_path: Path):
    result = embed(base, tmp_path / "v.npz", adapters, "--json")
    summary = json.loads(result.stdout)
    assert summary["names"] == ["one", "two", "three"]
    with np.load(tmp_path / "v.npz") as output:
        assert summary["norms"] == pytest.approx(np.linalg.norm(output["vectors"], axis=1).tolist())
    assert result.stdout.count("\n") == 1


def test_batch_size_does_not_change_vectors(base: Path, adapters: list[Path], tmp_path: Path):
    for batch in "13":
        embed(base, tmp_path / f"{batch}.npz", adapters, "--batch", batch)
    with np.load(tmp_path / "1.npz") as one, np.load(tmp_path / "3.npz") as three:
        np.testing.assert_allclose(one["vectors"], three["vectors"], atol=1e-6)


def test_options_are_part_of_the_space(base: Path, adapters: list[Path], tmp_path: Path):
    (tmp_path / "probes.json").write_text('["Hello."]')
    options = ("--feature", "delta_weighted_activations", "--dtype", "bfloat16", "--layer", "0.5")
    result = embed(base, tmp_path / "v.npz", adapters, *options, "--probes", str(tmp_path / "probes.json"), "--json")
    space = json.loads(result.stdout)["space"]
    assert (space["feature"], space["dtype"], space["layer"]) == ("delta_weighted_activations", "bfloat16", 1)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--feature", "delta_taste"), "unknown_feature"),
        (("--layer", "9"), "invalid_input"),
        (("--layer", "top"), "invalid_input"),
        (("--dtype", "int4"), "unsupported_base"),
        (("--probes", "missing.json"), "invalid_probe_set"),
    ],
)
def test_invalid_options_exit_with_their_error_code(
    base: Path, adapters: list[Path], tmp_path: Path, options: tuple[str, str], code: str
):
    result = embed(base, tmp_path / "v.npz", adapters, *options, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["code"] == code
    assert not (tmp_path / "v.npz").exists()


def test_error_names_the_invalid_folder(base: Path, adapters: list[Path], tmp_path: Path):
    (tmp_path / "empty").mkdir()
    result = embed(base, tmp_path / "v.npz", [*adapters, tmp_path / "empty"])
    assert result.exit_code == 1
    assert "no_supported_weights" in result.stderr
    assert "empty" in result.stderr


def test_error_names_the_adapter_that_does_not_fit(base: Path, adapters: list[Path], tmp_path: Path):
    wide = pico.make_adapter(tmp_path / "wide", hidden=64)
    result = embed(base, tmp_path / "v.npz", [*adapters, wide], "--json")
    error = json.loads(result.stdout)
    assert error["code"] == "shape_mismatch"
    assert "wide" in error["message"]


def test_unwritable_output_is_an_error(base: Path, adapters: list[Path], tmp_path: Path):
    result = embed(base, tmp_path / "missing" / "v.npz", adapters)
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


def test_content_sha_distinguishes_file_names_from_contents(tmp_path: Path):
    shas = []
    for name, content in (("a.json", "b.json"), ("a.jsonb.json", ""), ("b.json", "a.json")):
        (tmp_path / name).write_text(content)
        shas.append(content_sha(tmp_path))
        os.remove(tmp_path / name)
    assert len(set(shas)) == 3


def test_content_sha_ignores_files_that_do_not_affect_vectors(base: Path):
    before = content_sha(base)
    (base / "README.md").write_text("A note.")
    assert content_sha(base) == before


@pytest.mark.exhaustive
def test_vectors_equal_those_of_the_published_procedure(tmp_path: Path):
    """Compares the vectors of the demo's pool with reference vectors. Skipped where these are not available."""
    root = Path(__file__).parents[2]
    demo_base = root / ".deltadex" / "bases" / "HuggingFaceTB" / "SmolLM2-135M-Instruct"
    if not REFERENCE.is_dir() or not demo_base.is_dir():
        pytest.skip("neither the reference vectors nor the demo's base are part of the project")
    with np.load(REFERENCE / "vectors.npz") as expected:
        names, vectors = expected["names"].tolist(), expected["vectors"]
    folders = [root / "examples" / "pool" / name for name in names]
    result = embed(demo_base, tmp_path / "v.npz", folders, "--probes", str(REFERENCE / "probes.json"))
    assert result.exit_code == 0, result.stderr
    with np.load(tmp_path / "v.npz") as output:
        measured = output["vectors"]
    norms, expected_norms = np.linalg.norm(measured, axis=1), np.linalg.norm(vectors, axis=1)
    assert ((measured * vectors).sum(axis=1) / norms / expected_norms).min() >= 0.99999
    np.testing.assert_allclose(norms, expected_norms, rtol=1e-3)
