"""The mixtures among the examples, real adapters on the base of the demo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies.additivity import additivity_rows, check_mixtures, split_mixtures
from catalog.settings import Settings
from catalog.spaces.probes import load_probes
from workers.encoding.encoder import Encoder
from workers.evaluation.labels import read_labels
from workers.evaluation.pool import gather, load_base
from workers.evaluation.representations.delta import encode

ROOT = Path(__file__).parents[3]
BASE = ROOT / ".deltadex" / "bases" / "HuggingFaceTB" / "SmolLM2-135M-Instruct"

pytestmark = [
    pytest.mark.skipif(not BASE.is_dir(), reason="the base of the demo is missing; `make setup` fetches it"),
    pytest.mark.timeout(300),
]


def ignore_progress(*_: object) -> None:
    """A progress callback that does nothing."""


def test_true_pair_of_each_mixture_ranks_first_among_the_ten_sums():
    labels = ROOT / "examples" / "mixtures.csv"
    models = read_labels(labels)
    check_mixtures(models)
    pool = gather(models, labels, Settings(), ignore_progress)
    smollm = load_base(pool, BASE, Settings(), dtype="float32", device="cpu")
    vectors = encode(
        pool, Encoder(smollm, load_probes(), ["delta_activations"]), "delta_activations", 10, ignore_progress
    )
    vector_of = {label: vector.astype(float) for label, vector in zip(pool.labels, vectors, strict=True)}
    parts = sorted(label for label in vector_of if "+" not in label)
    sums = {f"{one}+{other}": vector_of[one] + vector_of[other] for one in parts for other in parts if one < other}
    assert len(sums) == 10

    def cosine(one: np.ndarray, other: np.ndarray) -> float:
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    mixtures = [label for label in vector_of if "+" in label]
    assert len(mixtures) == 5
    for label in mixtures:
        nearest = max(sums, key=lambda pair: cosine(vector_of[label], sums[pair]))
        assert nearest == "+".join(sorted(label.split("+")))
    ranks = [row["rank"] for row in additivity_rows(split_mixtures(pool, vectors)) if row["geometry"] == "raw"]
    assert ranks == [1] * 6
