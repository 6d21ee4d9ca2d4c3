"""Deadlines of stages: cooperative cancellation, nested stages, and the watchdog."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from catalog.errors import DeadlineExceeded, DownloadStopped
from tests.support.waiting import wait_until
from workers.process.cancellation import Cancelled, cancel_scope, is_cancelled, raise_if_cancelled
from workers.process.stages import Deadlines, RunningStage, Stage, Stages

OVER = 0.0  # a deadline that has passed at the first check
LIMIT = 30  # seconds


def check_until_cancelled() -> None:
    wait_until(is_cancelled, "the work is cancelled")
    raise_if_cancelled()


def test_stage_over_its_deadline_fails_at_its_next_check():
    with pytest.raises(DeadlineExceeded) as caught, Stages(Deadlines(forward=OVER)).run(Stage.FORWARD, [1]):
        check_until_cancelled()
    assert caught.value.transient
    assert "forward" in str(caught.value)
    assert "DELTADEX_FORWARD_DEADLINE" in str(caught.value)


def test_stopped_download_over_the_deadline_fails_with_it():
    def download() -> None:
        wait_until(is_cancelled, "the deadline has passed")
        raise DownloadStopped("The download was stopped.")

    with pytest.raises(DeadlineExceeded), Stages(Deadlines(fetch=OVER)).run(Stage.FETCH, [1]):
        download()


def test_stage_that_returns_in_spite_of_its_deadline_keeps_its_result():
    with Stages(Deadlines(forward=OVER)).run(Stage.FORWARD, [1]):
        wait_until(is_cancelled, "the deadline has passed")


def test_cancelled_job_is_not_reported_as_late():
    stages = Stages(Deadlines(forward=OVER))
    with pytest.raises(Cancelled), cancel_scope(lambda: True), stages.run(Stage.FORWARD, [1]):
        check_until_cancelled()


def test_stage_within_another_has_its_own_deadline_and_stops_the_clock_of_the_outer_one():
    stages = Stages(Deadlines(train=OVER, load=LIMIT))

    def work() -> None:
        with stages.run(Stage.LOAD):
            assert not is_cancelled()
        check_until_cancelled()

    with pytest.raises(DeadlineExceeded, match="train"), stages.run(Stage.TRAIN, [1]):
        work()


def test_deadline_of_a_stage_within_another_names_the_inner_one():
    stages = Stages(Deadlines(train=LIMIT, load=OVER))
    with pytest.raises(DeadlineExceeded, match="load"), stages.run(Stage.TRAIN, [1]), stages.run(Stage.LOAD):
        check_until_cancelled()


def test_watchdog_reports_a_stage_that_reaches_no_check_with_the_jobs_around_it():
    reported: list[RunningStage] = []
    stages = Stages(Deadlines(load=OVER), on_hang=reported.append, grace=0.0, poll_interval=0.01)
    stages.start()
    with stages.run(Stage.FORWARD, [1, 2]), stages.run(Stage.LOAD):
        wait_until(lambda: bool(reported), "the watchdog has seen the stage")
    stages.stop()
    assert (reported[0].stage, reported[0].job_ids) == (Stage.LOAD, {1, 2})


def test_watchdog_ignores_stages_within_the_grace_period_and_those_that_ended():
    reported: list[RunningStage] = []
    stages = Stages(Deadlines(load=OVER, fetch=OVER), on_hang=reported.append, grace=LIMIT, poll_interval=0.01)
    with stages.run(Stage.FETCH, [1]):
        pass
    stages.start()
    with stages.run(Stage.LOAD, [2]):
        wait_until(is_cancelled, "the deadline has passed")
        stages.stop()  # after the check that runs now
    assert reported == []


def test_threads_have_stages_of_their_own():
    stages, ended = Stages(Deadlines(forward=OVER, fetch=LIMIT)), threading.Event()

    def fetch() -> None:
        with stages.run(Stage.FETCH, [2]):
            assert not is_cancelled()
            ended.set()

    with stages.run(Stage.FORWARD, [1]):
        thread = threading.Thread(target=fetch)
        thread.start()
        thread.join(LIMIT)
    assert ended.is_set()


HUNG = """
import sys, time
from workers.process.orderly_stop import end_process
from workers.process.stages import Deadlines, Stage, Stages

def end(hung):
    end_process(lambda: print("handed back", sorted(hung.job_ids), flush=True), status=1)

stages = Stages(Deadlines(load=0.0), on_hang=end, grace=0.0, poll_interval=0.01)
stages.start()
with stages.run(Stage.LOAD, [7]):
    time.sleep(600)
"""


def test_process_with_a_hung_stage_hands_its_jobs_back_and_ends():
    process = subprocess.run([sys.executable, "-c", HUNG], capture_output=True, text=True, timeout=100, check=False)
    assert (process.returncode, process.stdout) == (1, "handed back [7]\n")


STALLED = """
import ctypes
from workers.process.stages import Stages

Stages(poll_interval=0.01, stall=0.2).start()
ctypes.PyDLL(None).sleep(600)  # holds the interpreter's lock
"""


def test_process_in_which_no_python_code_runs_ends():
    process = subprocess.run([sys.executable, "-c", STALLED], capture_output=True, text=True, timeout=100, check=False)
    assert process.returncode == 1
    assert "Timeout" in process.stderr
