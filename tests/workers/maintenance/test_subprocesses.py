from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from workers.maintenance.subprocesses import CLUSTERS, INDEX, MAP, SubprocessRunner


@pytest.fixture
def slow_runner() -> Iterator[SubprocessRunner]:
    """A runner whose builds sleep."""
    runner = SubprocessRunner(INDEX, (sys.executable, "-c", "import time; time.sleep(60)"))
    yield runner
    runner.stop()


def normal_priority_runner(name: str) -> SubprocessRunner:
    """A runner whose builds keep their priority: beside a test on each core, they would otherwise get no time."""
    code = (
        "import os, runpy; os.nice = os.sched_setscheduler = lambda *_: None; runpy.run_module('workers.maintenance', "
    )
    return SubprocessRunner(name, (sys.executable, "-c", code + "run_name='__main__')"))


def last_process(runner: SubprocessRunner) -> subprocess.Popen[bytes]:
    assert runner.last_process is not None
    return runner.last_process


def test_start_does_not_wait_and_allows_one_build_at_a_time(slow_runner: SubprocessRunner):
    assert slow_runner.start(1)
    assert last_process(slow_runner).args[-1] == "1"
    assert not slow_runner.start(2)


def test_next_build_starts_after_the_last_one_was_killed(
    slow_runner: SubprocessRunner, caplog: pytest.LogCaptureFixture
):
    slow_runner.start(1)
    last_process(slow_runner).kill()
    last_process(slow_runner).wait()
    assert slow_runner.start(2)
    assert "killed by signal 9" in caplog.text


def test_stop_terminates_the_build(slow_runner: SubprocessRunner):
    slow_runner.start(1)
    build = last_process(slow_runner)
    slow_runner.stop()
    assert build.returncode is not None


@pytest.mark.parametrize("name", [INDEX, MAP])
def test_build_of_an_unknown_space_fails(name: str):
    runner = normal_priority_runner(name)
    runner.start(10**9)
    assert last_process(runner).wait(100) != 0


@pytest.mark.usefixtures("servers")
def test_cluster_build_without_a_request_does_nothing():
    runner = normal_priority_runner(CLUSTERS)
    runner.start(10**9)
    assert last_process(runner).wait(100) == 0
