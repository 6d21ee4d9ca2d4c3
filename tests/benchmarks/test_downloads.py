"""The parts of the downloads' benchmark that need no processes of their own, and what they count."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.downloads import adapter, most_in_a_second, wrong_base
from tests.support.hub_server import ScriptedHub


@pytest.mark.parametrize(
    ("moments", "most"), [([0, 0.5, 0.99, 1.0], 3), ([0.9, 1.0, 1.1, 1.8, 5.0], 4), ([3.0], 1), ([1.0, 0.0, 0.5], 2)]
)
def test_the_busiest_second_may_begin_anywhere(moments: list[float], most: int):
    assert most_in_a_second(moments) == most


def test_an_adapter_of_the_wrong_base_is_refused_by_its_header(scripted_hub: ScriptedHub, tmp_path: Path):
    scripted_hub.publishes("o/large", adapter(2 * 10**6))
    figures = wrong_base(scripted_hub, tmp_path)
    assert figures["wrong_base_refused"]
    assert figures["wrong_base_bytes"] < 64 * 2**10
