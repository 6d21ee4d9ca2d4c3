"""The encoder benchmark on pico models."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from benchmarks.embed import app, check_targets
from tests.support import pico


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("benchmark")
    base = pico.make_base(folder / "base")
    for seed in range(3):
        pico.make_adapter(folder / "pool" / str(seed), seed=seed)
    options = [
        "--base",
        str(base),
        "--pool",
        str(folder / "pool"),
        "--rounds",
        "1",
        "--memory-adapters",
        "16",
        "--json",
    ]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_every_contender_is_measured(report: dict):
    contenders = {f"{dtype}_batch_{batch}" for dtype in ("float32", "bfloat16") for batch in (1, 4, 8)}
    assert set(report["seconds_per_adapter"]) == {"published", "bare_forward", *contenders}
    assert all(seconds > 0 for seconds in report["seconds_per_adapter"].values())


def test_the_encoder_agrees_with_the_published_procedure(report: dict):
    assert report["smallest_cosine"]["float32_to_published"] >= 0.99999
    assert report["smallest_cosine"]["bfloat16_to_float32"] >= 0.999


def test_memory_is_measured_in_a_process_with_one_base(report: dict):
    memory = report["memory"]
    assert memory["adapters"] == 16
    assert 0 < memory["base_bytes"] < 1e6
    assert max(memory["peak_above_base_by_tenths"]) == memory["peak_above_base"]


def test_targets_depend_on_the_measurements(report: dict):
    speedup = {name: 2.0 if name.startswith("float32") else 6.5 for name in report["speedup_over_published"]}
    verdicts = {target.name: target.met for target in check_targets({**report, "speedup_over_published": speedup})}
    assert not verdicts["float32_speedup_over_published"]
    assert verdicts["bfloat16_speedup_over_published"]
    assert verdicts["peak_bytes_above_base"]
