"""The parts of the download benchmark that do not need subprocesses."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.downloads import busiest_second, make_adapter, wrong_base
from tests.support.hub_server import ScriptedHub


@pytest.mark.parametrize(
    ("times", "expected"), [([0, 0.5, 0.99, 1.0], 3), ([0.9, 1.0, 1.1, 1.8, 5.0], 4), ([3.0], 1), ([1.0, 0.0, 0.5], 2)]
)
def test_busiest_second_may_begin_anywhere(times: list[float], expected: int):
    assert busiest_second(times) == expected


def test_adapter_of_another_base_is_refused_by_its_header(scripted_hub: ScriptedHub, tmp_path: Path):
    scripted_hub.publish("o/large", make_adapter(2 * 10**6))
    metrics = wrong_base(scripted_hub, tmp_path)
    assert metrics["wrong_base_refused"]
    assert metrics["wrong_base_bytes"] < 64 * 2**10
