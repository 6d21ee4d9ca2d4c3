from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.merges import FEATURES, merged, summary, turned
from catalog.merges.methods import Blend
from catalog.spaces.probes import ProbeSet
from tests.support.pico import BASE_ID, make_adapter, make_base
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune


def test_turned_factors_are_others_of_the_same_adapter(tmp_path: Path):
    adapter = read_finetune(make_adapter(tmp_path))
    other = turned(adapter)
    for name, module in adapter.modules.items():
        torch.testing.assert_close(other.modules[name].b @ other.modules[name].a, module.b @ module.a)
        assert not torch.allclose(other.modules[name].a, module.a, atol=0.1)


def test_exact_methods_do_not_notice_and_those_on_factors_do(tmp_path: Path):
    encoder = Encoder(
        ResidentBase.load(make_base(tmp_path / "base"), BASE_ID, "0" * 40), ProbeSet("one", ("Hello",)), FEATURES
    )
    parts = {str(seed): read_finetune(make_adapter(tmp_path / str(seed), seed=seed)) for seed in range(2)}
    other = parts | {"1": turned(parts["1"])}
    for method, same in (("cat", True), ("linear", False)):
        blend = Blend({"0": 1.0, "1": 1.0}, method)
        (first, _, rank), (second, _, _) = (merged(encoder, each, blend) for each in (parts, other))
        assert rank == (8 if method == "cat" else 4)
        assert (first["delta_layers"] == pytest.approx(second["delta_layers"], rel=1e-3, abs=1e-4)) == same


def test_a_summary_has_a_line_for_each_method_and_feature():
    row = {"method": "cat", "feature": "delta_layers", "ratio": 1.0, "own": True, "lean": 0.1, "seconds": 1.0}
    row["rank"] = 8
    [line] = summary([row | {"cosine": 0.9}, row | {"cosine": 0.7, "own": False}])
    assert (line["merges"], line["cosine_median"], line["cosine_least"], line["own"]) == (2, 0.8, 0.7, 1)
