"""`python -m workers.embed`: vectors without any server."""

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


def test_names_vectors_and_space_go_into_the_file(base: Path, adapters: list[Path], tmp_path: Path):
    assert embed(base, tmp_path / "v.npz", adapters).exit_code == 0
    with np.load(tmp_path / "v.npz") as found:
        assert found["names"].tolist() == ["one", "two", "three"]
        assert found["vectors"].shape == (3, pico.HIDDEN)
        assert found["vectors"].dtype == np.float32
        space = json.loads(str(found["space"]))
    assert (space["feature"], space["layer"], space["dtype"]) == ("delta_activations", -1, "float32")
    assert (space["base_repo"], space["base_sha"]) == ("pico", content_sha(base))


def test_a_summary_comes_as_one_line_of_json(base: Path, adapters: list[Path], tmp_path: Path):
    result = embed(base, tmp_path / "v.npz", adapters, "--json")
    summary = json.loads(result.stdout)
    assert summary["names"] == ["one", "two", "three"]
    with np.load(tmp_path / "v.npz") as found:
        assert summary["norms"] == pytest.approx(np.linalg.norm(found["vectors"], axis=1).tolist())
    assert result.stdout.count("\n") == 1


def test_the_size_of_a_batch_changes_no_vector(base: Path, adapters: list[Path], tmp_path: Path):
    for batch in "13":
        embed(base, tmp_path / f"{batch}.npz", adapters, "--batch", batch)
    with np.load(tmp_path / "1.npz") as one, np.load(tmp_path / "3.npz") as three:
        np.testing.assert_allclose(one["vectors"], three["vectors"], atol=1e-6)


def test_options_reach_the_space(base: Path, adapters: list[Path], tmp_path: Path):
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
def test_options_that_make_no_sense_end_with_their_code(
    base: Path, adapters: list[Path], tmp_path: Path, options: tuple[str, str], code: str
):
    result = embed(base, tmp_path / "v.npz", adapters, *options, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["code"] == code
    assert not (tmp_path / "v.npz").exists()


def test_a_bad_folder_among_good_ones_is_named(base: Path, adapters: list[Path], tmp_path: Path):
    (tmp_path / "empty").mkdir()
    result = embed(base, tmp_path / "v.npz", [*adapters, tmp_path / "empty"])
    assert result.exit_code == 1
    assert "nothing_to_embed" in result.stderr
    assert "empty" in result.stderr


def test_an_adapter_that_does_not_fit_is_named(base: Path, adapters: list[Path], tmp_path: Path):
    stranger = pico.make_adapter(tmp_path / "stranger", hidden=64)
    result = embed(base, tmp_path / "v.npz", [*adapters, stranger], "--json")
    answer = json.loads(result.stdout)
    assert answer["code"] == "shape_mismatch"
    assert "stranger" in answer["message"]


def test_a_place_that_cannot_be_written_is_an_error(base: Path, adapters: list[Path], tmp_path: Path):
    result = embed(base, tmp_path / "missing" / "v.npz", adapters)
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


def test_content_sha_knows_names_from_contents(tmp_path: Path):
    shas = []
    for name, content in (("a.json", "b.json"), ("a.jsonb.json", ""), ("b.json", "a.json")):
        (tmp_path / name).write_text(content)
        shas.append(content_sha(tmp_path))
        os.remove(tmp_path / name)
    assert len(set(shas)) == 3


def test_content_sha_leaves_out_what_no_vector_depends_on(base: Path):
    before = content_sha(base)
    (base / "README.md").write_text("Another word about it.")
    assert content_sha(base) == before


@pytest.mark.exhaustive
def test_the_published_procedures_vectors(tmp_path: Path):
    """On the demo's pool and base, where the reference lies beside the project."""
    root = Path(__file__).parents[2]
    demo_base = root / ".deltadex" / "bases" / "HuggingFaceTB" / "SmolLM2-135M-Instruct"
    if not REFERENCE.is_dir() or not demo_base.is_dir():
        pytest.skip("neither the reference vectors nor the demo's base are part of the project")
    with np.load(REFERENCE / "vectors.npz") as expected:
        names, vectors = expected["names"].tolist(), expected["vectors"]
    folders = [root / "examples" / "pool" / name for name in names]
    result = embed(demo_base, tmp_path / "v.npz", folders, "--probes", str(REFERENCE / "probes.json"))
    assert result.exit_code == 0, result.stderr
    with np.load(tmp_path / "v.npz") as found:
        own = found["vectors"]
    norms = np.linalg.norm(own, axis=1), np.linalg.norm(vectors, axis=1)
    assert ((own * vectors).sum(axis=1) / norms[0] / norms[1]).min() >= 0.99999
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-3)
