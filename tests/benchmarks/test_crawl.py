from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(600)
def test_a_crawl_that_is_killed_asks_for_nothing_twice_but_what_was_in_flight():
    command = [sys.executable, "-m", "benchmarks.crawl", "--repos", "220", "--embed", "12", "--kills", "1", "--json"]

    result = subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert (found["state"], found["queued"], found["pages"], found["files"]) == ("done", 220, 3, 24)
    assert found["pages_asked_twice"] <= 1
    assert (found["models_indexed"], found["jobs_failed"]) == (12, 208)
