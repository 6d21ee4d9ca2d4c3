"""The example pool and its mixtures, on the demo's base: real adapters, about twenty seconds on two cores."""

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
from tests.workers.evaluation import recomputed
from workers.encoding.continuations import Continuations
from workers.encoding.encoder import Encoder
from workers.encoding.guard import BaseGuard
from workers.encoding.resident_base import ResidentBase
from workers.evaluation.evaluate import app
from workers.evaluation.labels import check_groups, read_labels
from workers.evaluation.pool import Pool, gather, load_base
from workers.evaluation.representations import REPRESENTATIONS, Setting
from workers.evaluation.representations.delta import encode
from workers.evaluation.scorecard import score
from workers.evaluation.studies.additivity import additivity_rows, blend, check_mixtures

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


@pytest.mark.exhaustive
def test_the_true_pair_of_each_mixture_ranks_first_among_the_ten_sums(smollm: ResidentBase):
    labels = ROOT / "examples" / "mixtures.csv"
    found = read_labels(labels)
    check_mixtures(found)
    pool = gather(found, labels, Settings(), silent)
    vectors = encode(pool, Encoder(smollm, load_probes(), ["delta_activations"]), "delta_activations", 10, silent)
    named = {label: vector.astype(float) for label, vector in zip(pool.labels, vectors, strict=True)}
    parts = sorted(label for label in named if "+" not in label)
    sums = {f"{one}+{other}": named[one] + named[other] for one in parts for other in parts if one < other}
    assert len(sums) == 10

    def cosine(one: np.ndarray, other: np.ndarray) -> float:
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    mixtures = [label for label in named if "+" in label]
    assert len(mixtures) == 5
    for label in mixtures:
        nearest = max(sums, key=lambda pair: cosine(named[label], sums[pair]))
        assert nearest == "+".join(sorted(label.split("+")))
    ranks = [row["rank"] for row in additivity_rows(blend(pool, vectors)) if row["geometry"] == "raw"]
    assert ranks == [1] * 6
