"""The demo, as `make demo CHECK=1` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASES = ROOT / ".deltadex" / "bases"

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not BASES.is_dir(), reason="the base of the demo is missing; `make setup` fetches it"),
]


def test_nearest_neighbors_of_the_demo_are_of_the_same_domain(tmp_path):
    (tmp_path / "bases").symlink_to(BASES)
    result = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py", "--check"],
        env=os.environ | {"DELTADEX_DATA_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "15 of 15 nearest neighbors are of the same domain." in result.stdout
