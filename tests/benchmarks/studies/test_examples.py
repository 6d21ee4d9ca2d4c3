"""The mixtures among the examples, on the demo's base: real adapters."""

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
    pytest.mark.skipif(not BASE.is_dir(), reason="the demo's base is not here; `make setup` fetches it"),
    pytest.mark.timeout(300),
]


def silent(*_: object) -> None:
    """Nobody watches."""


def test_the_true_pair_of_each_mixture_ranks_first_among_the_ten_sums():
    labels = ROOT / "examples" / "mixtures.csv"
    found = read_labels(labels)
    check_mixtures(found)
    pool = gather(found, labels, Settings(), silent)
    smollm = load_base(pool, BASE, Settings(), dtype="float32", device="cpu")
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
    ranks = [row["rank"] for row in additivity_rows(split_mixtures(pool, vectors)) if row["geometry"] == "raw"]
    assert ranks == [1] * 6
