from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(600)
def test_submissions_are_measured_while_everything_is_published():
    command = [sys.executable, "-m", "benchmarks.publishing", "--models", "400", "--dimension", "16", "--quiet", "1"]

    command.append("--json")
    result = subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr
    phases = json.loads(result.stdout.splitlines()[-1])["phases"]
    assert [row["phase"] for row in phases] == ["quiet", "clusters 1", "clusters 2", "map", "cutover"]
    assert all(row["posts"] > 2 and row["post_p99"] >= row["post_p50"] > 0 for row in phases)
    assert [row["phase"] for row in phases if "visible_s" in row] == ["clusters 1", "clusters 2", "map"]
