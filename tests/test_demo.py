"""The demo, as `make demo CHECK=1` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).parents[1]
BASES = ROOT / ".deltadex" / "bases"

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not BASES.is_dir(), reason="the base of the demo is missing; `make setup` fetches it"),
]


def test_nearest_neighbors_of_the_demo_are_of_the_same_domain():
    others = ("DATABASE_URL", "REDIS_URL", "ADMIN_API_KEY")  # of the tests' own servers
    env = {name: value for name, value in os.environ.items() if name not in others}
    # not in pytest's folder: a second test session makes that inaccessible for the user that Postgres runs as
    with TemporaryDirectory(prefix="deltadex-") as folder:
        Path(folder, "bases").symlink_to(BASES)
        result = subprocess.run(
            [sys.executable, ROOT / "examples" / "demo.py", "--check"],
            env=env | {"DELTADEX_DATA_DIR": folder, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
        )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "15 of 15 nearest neighbors are of the same domain." in result.stdout
