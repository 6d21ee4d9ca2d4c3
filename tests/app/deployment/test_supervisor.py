"""Tests of the supervisor with real processes: small Python programs that log what happens to them."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from app.deployment.supervisor import Supervisor
from tests.support.waiting import wait_until

SLEEP = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"]
STUBBORN = [
    *(sys.executable, "-c"),
    "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid(), flush=True)\n"
    "time.sleep(60)",
]


SLOW_TO_STOP = [
    *(sys.executable, "-c"),
    "import os, signal, time\n"
    "def end(*_):\n"
    "    print('stopping', flush=True)\n"
    "    time.sleep(1)\n"
    "    print('stopped', flush=True)\n"
    "    os._exit(0)\n"
    "signal.signal(signal.SIGTERM, end); print(os.getpid(), flush=True); time.sleep(600)",
]


@pytest.fixture
def supervisor(tmp_path):
    with Supervisor(tmp_path / "logs", first_delay=0.05, longest_delay=5.0, stop_limit=30.0) as running:
        yield running


def wait_for(condition: Callable[[], object]) -> object:
    return wait_until(condition, "the children are in the expected state")


def pids(log_dir: Path, name: str) -> list[int]:
    file = log_dir / f"{name}.log"
    return [int(line) for line in file.read_text().splitlines() if line.isdigit()] if file.exists() else []


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_output_of_a_child_goes_to_its_log(supervisor, tmp_path):
    supervisor.start("sleeper", SLEEP)
    (pid,) = wait_for(lambda: pids(tmp_path / "logs", "sleeper"))
    assert is_running(pid)
    assert supervisor.alive() == {"sleeper": True}


def test_killed_child_is_restarted(supervisor, tmp_path):
    supervisor.start("sleeper", SLEEP)
    (first,) = wait_for(lambda: pids(tmp_path / "logs", "sleeper"))
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: len(pids(tmp_path / "logs", "sleeper")) == 2)
    assert is_running(pids(tmp_path / "logs", "sleeper")[1])


def test_restarts_of_a_failing_child_back_off(tmp_path):
    print_time = [sys.executable, "-S", "-c", "import time; print(time.monotonic())"]
    log = tmp_path / "hasty.log"
    with Supervisor(tmp_path, first_delay=0.3, longest_delay=60.0) as supervisor:
        supervisor.start("hasty", print_time)
        wait_for(lambda: log.exists() and len(log.read_text().splitlines()) >= 4)
    times = [float(line) for line in log.read_text().splitlines()]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[0] >= 0.3
    assert pauses[1] >= 0.6
    assert pauses[2] >= 1.2


def test_missing_program_does_not_affect_other_children(supervisor, tmp_path):
    supervisor.start("missing", ["no-such-program"])
    supervisor.start("sleeper", SLEEP)
    wait_for(lambda: pids(tmp_path / "logs", "sleeper"))
    assert "No such file" in wait_for((tmp_path / "logs" / "missing.log").read_text)


def test_child_gets_the_given_environment(tmp_path):
    show = [sys.executable, "-c", "import os; print(os.environ['VARIABLE'], flush=True)"]
    log = tmp_path / "show.log"
    with Supervisor(tmp_path, {**os.environ, "VARIABLE": "value"}, longest_delay=60.0) as supervisor:
        supervisor.start("show", show)
        wait_for(lambda: log.exists() and "value" in log.read_text())


def test_stop_sends_sigterm_to_children(supervisor, tmp_path):
    polite = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(print('bye'))); print('up', flush=True)\n"
    supervisor.start("polite", [sys.executable, "-c", polite + "time.sleep(60)"])
    log = tmp_path / "logs" / "polite.log"
    wait_for(lambda: log.exists() and "up" in log.read_text())
    supervisor.stop()
    assert "bye" in log.read_text()
    assert supervisor.alive() == {"polite": False}


def test_child_that_ignores_sigterm_is_killed_after_the_limit(tmp_path):
    with Supervisor(tmp_path, stop_limit=0.3) as supervisor:
        supervisor.start("stubborn", STUBBORN)
        (pid,) = wait_for(lambda: pids(tmp_path, "stubborn"))
    assert not is_running(pid)


def test_processes_started_by_a_child_end_with_it(tmp_path):
    parent = f"import subprocess, sys; subprocess.run({SLEEP!r})"
    with Supervisor(tmp_path) as supervisor:
        supervisor.start("parent", [sys.executable, "-c", parent])
        (grandchild,) = wait_for(lambda: pids(tmp_path, "parent"))
    wait_for(lambda: not is_running(grandchild))


def test_check_is_called_again_after_it_raised(tmp_path, monkeypatch):
    monkeypatch.setattr("app.deployment.supervisor.CHECK_INTERVAL", 0.01)
    calls = []

    def check() -> None:
        calls.append(1)
        raise OSError("a server is down")

    with Supervisor(tmp_path, check=check):
        wait_for(lambda: len(calls) >= 2)


@pytest.fixture
def program(tmp_path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that supervises two children until it receives a signal."""
    source = textwrap.dedent(f"""
        import signal
        from pathlib import Path
        from app.deployment.signals import one_interrupt
        from app.deployment.supervisor import Supervisor
        signal.signal(signal.SIGINT, signal.default_int_handler)  # in background jobs of a shell it is ignored
        with one_interrupt(), Supervisor(Path({str(tmp_path)!r}), stop_limit=30.0) as supervisor:
            supervisor.start("sleeper", {SLEEP!r})
            supervisor.start("slow", {SLOW_TO_STOP!r})
            supervisor.wait()
    """)
    with subprocess.Popen([sys.executable, "-c", source]) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_shuts_down_the_program_and_its_children(number, program, tmp_path):
    (child,) = wait_for(lambda: pids(tmp_path, "sleeper"))
    program.send_signal(number)
    assert program.wait(timeout=60) == 0
    assert not is_running(child)


def test_second_signal_does_not_interrupt_the_shutdown_of_a_child(program, tmp_path):
    wait_for(lambda: pids(tmp_path, "slow"))
    log = tmp_path / "slow.log"
    program.send_signal(signal.SIGTERM)
    wait_for(lambda: "stopping" in log.read_text())
    program.send_signal(signal.SIGTERM)
    program.send_signal(signal.SIGINT)
    assert program.wait(timeout=60) == 0
    assert log.read_text().splitlines()[1:] == ["stopping", "stopped"]


def test_children_that_stop_slowly_are_reported(tmp_path, monkeypatch):
    monkeypatch.setattr("app.deployment.supervisor.REPORT_AFTER", 0.1)
    reports = []
    with Supervisor(tmp_path, stop_limit=30.0, report_waiting=lambda *report: reports.append(report)) as supervisor:
        supervisor.start("sleeper", SLEEP)
        supervisor.start("slow", SLOW_TO_STOP)
        wait_for(lambda: pids(tmp_path, "slow") and pids(tmp_path, "sleeper"))
    [(names, remaining)] = reports
    assert "slow" in names
    assert 0 < remaining < 30


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills the children of a killed process")
def test_children_end_when_the_supervisor_is_killed(program, tmp_path):
    (child,) = wait_for(lambda: pids(tmp_path, "sleeper"))
    program.kill()
    program.wait(timeout=60)
    wait_for(lambda: not is_running(child))
