from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(600)
def test_api_answers_generated_requests_as_its_document_says():
    command = [sys.executable, "-m", "benchmarks.fuzz", "--requests", "500", "--seed", "1", "--json"]

    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert (report["requests"], report["failures"]) == (500, {})
    assert "500" not in report["statuses"]
    assert {"200", "401", "403", "404", "422"} <= set(report["statuses"])
