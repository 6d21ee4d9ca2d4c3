from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.merges import FEATURES, merge_and_encode, rotate_factors, summarize
from catalog.merges.methods import MergeSpec
from catalog.spaces.probes import ProbeSet
from tests.support.pico import BASE_ID, make_adapter, make_base
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune


def test_rotated_factors_have_the_same_products(tmp_path: Path):
    adapter = read_finetune(make_adapter(tmp_path))
    other = rotate_factors(adapter)
    for name, module in adapter.modules.items():
        torch.testing.assert_close(other.modules[name].b @ other.modules[name].a, module.b @ module.a)
        assert not torch.allclose(other.modules[name].a, module.a, atol=0.1)


def test_rotated_factors_change_only_methods_that_combine_factors(tmp_path: Path):
    encoder = Encoder(
        ResidentBase.load(make_base(tmp_path / "base"), BASE_ID, "0" * 40), ProbeSet("one", ("Hello",)), FEATURES
    )
    parts = {str(seed): read_finetune(make_adapter(tmp_path / str(seed), seed=seed)) for seed in range(2)}
    other = parts | {"1": rotate_factors(parts["1"])}
    for method, same in (("cat", True), ("linear", False)):
        spec = MergeSpec({"0": 1.0, "1": 1.0}, method)
        first, _, rank = merge_and_encode(encoder, parts, spec)
        second, _, _ = merge_and_encode(encoder, other, spec)
        assert rank == (8 if method == "cat" else 4)
        assert (first["delta_layers"] == pytest.approx(second["delta_layers"], rel=1e-3, abs=1e-4)) == same


def test_summary_has_one_row_per_method_and_feature():
    row = {"method": "cat", "feature": "delta_layers", "ratio": 1.0, "own_pair": True, "imbalance": 0.1, "seconds": 1.0}
    row["rank"] = 8
    [summary] = summarize([row | {"cosine": 0.9}, row | {"cosine": 0.7, "own_pair": False}])
    assert (summary["merges"], summary["cosine_median"], summary["cosine_min"], summary["own_pair"]) == (2, 0.8, 0.7, 1)
