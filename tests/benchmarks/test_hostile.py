from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.hostile_repos import KINDS

ROOT = Path(__file__).parents[2]
GOOD = 8


@pytest.mark.timeout(1200)
def test_one_repo_of_each_hostile_kind_hurts_no_good_one():
    command = [sys.executable, "-m", "benchmarks.hostile", "--repos", str(len(KINDS)), "--good", str(GOOD), "--json"]

    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    report = json.loads(result.stdout.splitlines()[-1])
    assert (report["failed_checks"], report["untyped"]) == ([], {}), report["codes"]
    assert (report["typed_errors"], report["right_vectors"]) == (len(KINDS), GOOD)
    assert result.returncode == 0
