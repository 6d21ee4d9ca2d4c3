from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from workers.process.scratch import PREFIX, scratch, sweep

FILLS_AND_WAITS = """
import time
from workers.process.scratch import scratch
with scratch() as folder:
    (folder / "adapter").write_text("of somebody's examples")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_a_folder_goes_with_its_work(tmp_path: Path):
    with scratch() as folder:
        assert list(folder.iterdir()) == []
        (folder / "file").touch()
        assert sweep() == 0
        assert (folder / "file").exists()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_deleted(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", FILLS_AND_WAITS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert (folder / "adapter").exists()
        assert sweep() == 0
        os.kill(process.pid, signal.SIGKILL)
    assert (folder / "adapter").exists()
    assert sweep() == 1
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_being_made_is_left(tmp_path: Path):
    (tmp_path / f"{PREFIX}new").mkdir()
    assert sweep() == 0
    assert (tmp_path / f"{PREFIX}new").exists()
