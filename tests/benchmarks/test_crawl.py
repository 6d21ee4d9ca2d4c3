from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(600)
def test_killed_crawl_repeats_only_requests_in_flight():
    command = [sys.executable, "-m", "benchmarks.crawl", "--repos", "220", "--embed", "12", "--kills", "1", "--json"]

    result = subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert (report["state"], report["queued"], report["pages"], report["files"]) == ("done", 220, 3, 24)
    assert report["repeated_page_requests"] <= 1
    assert (report["models_indexed"], report["jobs_failed"]) == (12, 208)
