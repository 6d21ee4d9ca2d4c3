"""The example pool, on the demo's base: real adapters, about twenty seconds on two cores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from catalog.settings import Settings
from catalog.spaces.probes import load_probes
from tests.support import recomputed
from workers.encoding.continuations import Continuations
from workers.encoding.guard import BaseGuard
from workers.encoding.resident_base import ResidentBase
from workers.evaluation.evaluate import app
from workers.evaluation.labels import check_groups, read_labels
from workers.evaluation.pool import Pool, gather, load_base
from workers.evaluation.representations import REPRESENTATIONS, Setting
from workers.evaluation.scorecard import score

ROOT = Path(__file__).parents[3]
BASE = ROOT / ".deltadex" / "bases" / "HuggingFaceTB" / "SmolLM2-135M-Instruct"
REFERENCE = ROOT.parent / "shared" / "reference"

pytestmark = [
    pytest.mark.skipif(not BASE.is_dir(), reason="the demo's base is not here; `make setup` fetches it"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module", autouse=True)
def two_threads() -> Iterator[None]:
    """The base is large enough to gain by them."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def silent(*_: object) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def examples() -> Pool:
    labels = ROOT / "examples" / "labels.csv"
    found = read_labels(labels)
    check_groups(found)
    return gather(found, labels, Settings(), silent)


@pytest.fixture(scope="module")
def smollm(examples: Pool) -> ResidentBase:
    return load_base(examples, BASE, Settings(), dtype="float32", device="cpu")


def test_the_examples_are_five_domains_of_three(examples: Pool):
    assert len(examples) == 15
    assert [examples.labels.count(group) for group in examples.groups] == [3] * 5


@pytest.mark.exhaustive
def test_all_seven_are_printed_with_the_figures_of_their_stored_vectors(
    tmp_path: Path, four_continuations: Continuations
):
    """With a short probe, short answers and four continuations, for the time's sake: other figures than in the docs."""
    (tmp_path / "probes.json").write_text('["Answer:"]')
    labels, probes = str(ROOT / "examples" / "labels.csv"), ["--probes", str(tmp_path / "probes.json")]
    options = ["--out", str(tmp_path), "--base", str(BASE), "--answer-tokens", "4", "--resamples", "20", *probes]
    result = CliRunner().invoke(app, [labels, *options])
    assert result.exit_code == 0, result.stderr
    for name in REPRESENTATIONS:
        expected = recomputed.figures(tmp_path / "vectors" / f"{name}.npz")
        start = name.rpartition("_")[0] + "_ "
        printed = [line.split()[1:5] for line in result.stdout.splitlines() if line.startswith(start)]
        wanted = [expected[measure] for measure in ("silhouette", "silhouette_centred", "nearest", "adjusted_rand")]
        assert any(np.allclose([float(cell) for cell in row], wanted, atol=6e-4) for row in printed), name


@pytest.mark.exhaustive
def test_delta_activations_match_the_published_procedures_scores(examples: Pool, smollm: ResidentBase):
    if not REFERENCE.is_dir():
        pytest.skip("the reference scores are no part of the project")
    expected = json.loads((REFERENCE / "scores.json").read_text())
    probes = load_probes(REFERENCE / "probes.json")
    setting = Setting(smollm, BaseGuard(smollm.model), probes, 15, 0.01, 1)
    chosen = [REPRESENTATIONS["delta_activations"]]
    [line] = score(examples, chosen, setting, smallest=3, resamples=20, seed=0, tell=silent)
    assert line.figures is not None
    assert line.figures.silhouette.value == pytest.approx(expected["silhouette"], abs=0.002)
    assert line.figures.silhouette_centred.value == pytest.approx(expected["silhouette_centred"], abs=0.002)
    assert line.figures.nearest.value == expected["nn1"]
    assert line.figures.adjusted_rand.value == 1.0
