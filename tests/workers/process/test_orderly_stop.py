"""A worker's process that is told to end, in processes of their own: whatever they do, they end."""

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

def give_up():
    print("give up", flush=True)

stop = OrderlyStop(give_up, sign_off, lambda: "loading a base", grace=float(sys.argv[2]))
stop.start()
stop.request()
stop.request()
{work}
"""


def run(folder: Path, grace: float, *, work: str, sign_off: str = "") -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(work=work, sign_off=sign_off)
    command = [sys.executable, "-c", program, str(folder / "said"), str(grace)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_work_that_reaches_no_step_is_left_after_signing_off(tmp_path: Path):
    ended = run(tmp_path, 0.2, work="time.sleep(600)")
    assert (ended.returncode, (tmp_path / "said").read_text()) == (0, "signed off")
    assert ended.stdout == "give up\n"
    assert "stopping after the current step of: loading a base" in ended.stderr


def test_a_process_that_ends_by_itself_is_not_waited_for(tmp_path: Path):
    ended = run(tmp_path, 600, work="time.sleep(0.2)")
    assert (ended.returncode, (tmp_path / "said").exists()) == (0, False)


@pytest.mark.parametrize(("sign_off", "status"), [("time.sleep(600)", 1), ("raise RuntimeError", 0)])
def test_a_sign_off_that_fails_or_hangs_keeps_no_process(tmp_path: Path, sign_off: str, status: int):
    assert run(tmp_path, 0.2, work="time.sleep(600)", sign_off=sign_off).returncode == status
