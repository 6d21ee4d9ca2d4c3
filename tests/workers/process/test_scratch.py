from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from workers.process.scratch import FOLDER_PREFIX, delete_abandoned, scratch

WAITING_PROGRAM = """
import time
from workers.process.scratch import scratch
with scratch() as folder:
    (folder / "adapter").write_text("trained on private examples")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_folder_is_deleted_at_the_end_of_its_context(tmp_path: Path):
    with scratch() as folder:
        assert list(folder.iterdir()) == []
        (folder / "file").touch()
        assert delete_abandoned() == 0
        assert (folder / "file").exists()
    assert list(tmp_path.iterdir()) == []


def test_folder_of_a_killed_process_is_deleted(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", WAITING_PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert (folder / "adapter").exists()
        assert delete_abandoned() == 0
        os.kill(process.pid, signal.SIGKILL)
    assert (folder / "adapter").exists()
    assert delete_abandoned() == 1
    assert list(tmp_path.iterdir()) == []


def test_folder_without_a_lock_file_is_left_alone(tmp_path: Path):
    (tmp_path / f"{FOLDER_PREFIX}new").mkdir()
    assert delete_abandoned() == 0
    assert (tmp_path / f"{FOLDER_PREFIX}new").exists()
