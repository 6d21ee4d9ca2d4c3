from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from workers.maintenance.subprocesses import CLUSTERS, INDEX, MAP, Builder


@pytest.fixture
def slow() -> Iterator[Builder]:
    """A builder whose builds sleep."""
    made = Builder(INDEX, (sys.executable, "-c", "import time; time.sleep(60)"))
    yield made
    made.stop()


def eager(name: str) -> Builder:
    """One whose process does not make way for all others: where a test runs on each core it would get no time."""
    code = (
        "import os, runpy; os.nice = os.sched_setscheduler = lambda *_: None; runpy.run_module('workers.maintenance', "
    )
    return Builder(name, (sys.executable, "-c", code + "run_name='__main__')"))


def running(made: Builder) -> subprocess.Popen[bytes]:
    assert made.last is not None
    return made.last


def test_a_build_is_not_waited_for_and_is_the_only_one(slow: Builder):
    assert slow.start(1)
    assert running(slow).args[-1] == "1"
    assert not slow.start(2)


def test_when_a_build_has_ended_the_next_one_starts(slow: Builder, caplog: pytest.LogCaptureFixture):
    slow.start(1)
    running(slow).kill()
    running(slow).wait()
    assert slow.start(2)
    assert "killed by signal 9" in caplog.text


def test_a_worker_that_stops_breaks_its_build_off(slow: Builder):
    slow.start(1)
    build = running(slow)
    slow.stop()
    assert build.returncode is not None


@pytest.mark.parametrize("name", [INDEX, MAP])
def test_what_is_made_of_a_space_that_is_not_there_fails_by_itself(name: str):
    made = eager(name)
    made.start(10**9)
    assert running(made).wait(100) != 0


@pytest.mark.usefixtures("servers")
def test_clusters_that_nobody_asked_for_are_not_looked_for():
    made = eager(CLUSTERS)
    made.start(10**9)
    assert running(made).wait(100) == 0
