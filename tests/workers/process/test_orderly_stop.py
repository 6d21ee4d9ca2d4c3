"""Worker processes end in bounded time once a stop is requested, whatever they are doing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import logging, sys, time
from pathlib import Path
from workers.process.orderly_stop import OrderlyStop
logging.basicConfig(level=logging.INFO)

def sign_off():
    Path(sys.argv[1]).write_text("signed off")
    {sign_off}

def cancel_work():
    print("cancelled", flush=True)

stop = OrderlyStop(cancel_work, sign_off, lambda: "loading a base", grace=float(sys.argv[2]))
stop.start()
stop.request()
stop.request()
{work}
"""


def run(folder: Path, grace: float, *, work: str, sign_off: str = "") -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(work=work, sign_off=sign_off)
    command = [sys.executable, "-c", program, str(folder / "said"), str(grace)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_process_signs_off_and_ends_when_the_work_does_not(tmp_path: Path):
    process = run(tmp_path, 0.2, work="time.sleep(600)")
    assert (process.returncode, (tmp_path / "said").read_text()) == (0, "signed off")
    assert process.stdout == "cancelled\n"
    assert "stopping after the current step of: loading a base" in process.stderr


def test_process_that_ends_in_time_does_not_sign_off(tmp_path: Path):
    process = run(tmp_path, 600, work="time.sleep(0.2)")
    assert (process.returncode, (tmp_path / "said").exists()) == (0, False)


@pytest.mark.parametrize(("sign_off", "status"), [("time.sleep(600)", 1), ("raise RuntimeError", 0)])
def test_process_ends_when_the_sign_off_fails_or_hangs(tmp_path: Path, sign_off: str, status: int):
    assert run(tmp_path, 0.2, work="time.sleep(600)", sign_off=sign_off).returncode == status
