"""The example pool on the base of the demo: real adapters, about twenty seconds on two cores."""

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
from workers.evaluation.labels import check_labels, read_labels
from workers.evaluation.pool import Pool, gather, load_base
from workers.evaluation.representations import REPRESENTATIONS, EvaluationContext
from workers.evaluation.scorecard import score

ROOT = Path(__file__).parents[3]
BASE = ROOT / ".deltadex" / "bases" / "HuggingFaceTB" / "SmolLM2-135M-Instruct"
REFERENCE = ROOT.parent / "shared" / "reference"

pytestmark = [
    pytest.mark.skipif(not BASE.is_dir(), reason="the base of the demo is missing; `make setup` fetches it"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module", autouse=True)
def two_threads() -> Iterator[None]:
    """The base is large enough to benefit from two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def ignore_progress(*_: object) -> None:
    """A progress callback that does nothing."""


@pytest.fixture(scope="module")
def examples() -> Pool:
    labels = ROOT / "examples" / "labels.csv"
    models = read_labels(labels)
    check_labels(models)
    return gather(models, labels, Settings(), ignore_progress)


@pytest.fixture(scope="module")
def smollm(examples: Pool) -> ResidentBase:
    return load_base(examples, BASE, Settings(), dtype="float32", device="cpu")


def test_examples_are_five_domains_of_three_adapters(examples: Pool):
    assert len(examples) == 15
    assert [examples.labels.count(group) for group in examples.classes] == [3] * 5


@pytest.mark.exhaustive
def test_printed_metrics_match_the_stored_vectors(tmp_path: Path, four_continuations: Continuations):
    """A short probe, short answers and four continuations save time, so the values differ from those in the docs."""
    (tmp_path / "probes.json").write_text('["Answer:"]')
    labels, probes = str(ROOT / "examples" / "labels.csv"), ["--probes", str(tmp_path / "probes.json")]
    options = ["--out", str(tmp_path), "--base", str(BASE), "--answer-tokens", "4", "--resamples", "20", *probes]
    result = CliRunner().invoke(app, [labels, *options])
    assert result.exit_code == 0, result.stderr
    for name in REPRESENTATIONS:
        expected = recomputed.metrics(tmp_path / "vectors" / f"{name}.npz")
        start = name.rpartition("_")[0] + "_ "
        printed = [line.split()[1:5] for line in result.stdout.splitlines() if line.startswith(start)]
        expected_row = [
            expected[measure] for measure in ("silhouette", "silhouette_centered", "nearest", "adjusted_rand")
        ]
        assert any(np.allclose([float(cell) for cell in row], expected_row, atol=6e-4) for row in printed), name


@pytest.mark.exhaustive
def test_delta_activations_match_the_scores_of_the_published_procedure(examples: Pool, smollm: ResidentBase):
    if not REFERENCE.is_dir():
        pytest.skip("the reference scores are not part of the project")
    expected = json.loads((REFERENCE / "scores.json").read_text())
    probes = load_probes(REFERENCE / "probes.json")
    context = EvaluationContext(smollm, BaseGuard(smollm.model), probes, 15, 0.01, 1)
    chosen = [REPRESENTATIONS["delta_activations"]]
    [result] = score(examples, chosen, context, min_cluster_size=3, resamples=20, seed=0, progress=ignore_progress)
    assert result.metrics is not None
    assert result.metrics.silhouette.value == pytest.approx(expected["silhouette"], abs=0.002)
    [centered] = [value for name, value in expected.items() if name.startswith("silhouette_")]
    assert result.metrics.silhouette_centered.value == pytest.approx(centered, abs=0.002)
    assert result.metrics.nearest.value == expected["nn1"]
    assert result.metrics.adjusted_rand.value == 1.0
