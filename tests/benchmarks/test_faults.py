from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(600)
def test_jobs_survive_a_killed_worker_and_a_crash_of_each_server():
    command = [sys.executable, "-m", "benchmarks.faults", "--quick", "--json"]

    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert (report["done"], report["failed_checks"]) == (40, [])
    assert {kind: report["faults"][kind] for kind in ("kill", "flush", "crash")} == {"kill": 1, "flush": 1, "crash": 1}
