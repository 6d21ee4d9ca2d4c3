from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from catalog.errors import DatabaseUnavailable
from catalog.threads.periodic_thread import PeriodicThread
from tests.support.waiting import LIMIT, wait_until

NEVER = 10 * LIMIT  # seconds; longer than any test waits


@contextmanager
def running(step: Callable[[], object], interval: float | Callable[[], float]) -> Iterator[PeriodicThread]:
    thread = PeriodicThread("walker", step, interval)
    thread.start()
    try:
        yield thread
    finally:
        thread.stop()


def test_first_step_runs_immediately_and_others_follow():
    steps: list[int] = []
    with running(lambda: steps.append(1), 0.01):
        wait_until(lambda: len(steps) >= 3, "three steps")


def test_second_step_waits_for_the_interval():
    steps: list[int] = []
    with running(lambda: steps.append(1), NEVER):
        wait_until(lambda: steps, "a step")
    assert steps == [1]


def test_next_step_runs_immediately_when_there_is_more_work():
    remaining = [True, True, False]
    with running(lambda: remaining and remaining.pop(0), NEVER):
        wait_until(lambda: not remaining, "all work is done")


def test_interval_may_change():
    steps: list[int] = []
    with running(lambda: steps.append(1), lambda: 0 if len(steps) < 3 else NEVER):
        wait_until(lambda: len(steps) == 3, "three steps")
    assert len(steps) == 3


class Panic(BaseException):
    """Like a panic in native code, not an `Exception`."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DatabaseUnavailable("Postgres does not answer."), "walker failed and will try again: database_unavailable"),
        (RuntimeError("no idea"), "Unexpected error in walker; continuing"),
        (Panic("called `Option::unwrap()` on a `None` value"), "Unexpected error in walker; continuing"),
    ],
)
def test_thread_survives_and_logs_errors_of_a_step(
    error: BaseException, message: str, caplog: pytest.LogCaptureFixture
):
    steps: list[int] = []

    def step() -> None:
        steps.append(1)
        if len(steps) == 1:
            raise error

    with running(step, 0.01):
        wait_until(lambda: len(steps) >= 2, "another step")
    assert message in caplog.text


def test_stop_waits_for_the_running_step():
    begun, finished = threading.Event(), threading.Event()

    def step() -> None:
        begun.set()
        wait_until(lambda: thread.stopping, "a stop is requested")
        time.sleep(0.05)  # `stop` would return earlier if it did not wait
        finished.set()

    thread = PeriodicThread("walker", step, NEVER)
    thread.start()
    assert begun.wait(LIMIT)
    thread.stop()
    assert finished.is_set()


def test_request_stop_does_not_wait_and_starts_no_step():
    begun, released = threading.Event(), threading.Event()
    steps: list[int] = []

    def step() -> bool:
        steps.append(1)
        begun.set()
        released.wait(LIMIT)
        return True

    with running(step, 0) as thread:
        assert begun.wait(LIMIT)
        thread.request_stop()  # while the step waits
        assert thread.stopping
        released.set()
    assert steps == [1]


def test_thread_that_was_never_started_can_be_stopped():
    steps: list[int] = []
    thread = PeriodicThread("walker", lambda: steps.append(1), 0)
    thread.stop()
    assert steps == []
