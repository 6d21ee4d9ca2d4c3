from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from catalog.errors import DatabaseUnavailable
from catalog.periodic import PeriodicThread
from tests.support.waiting import LIMIT, wait_until

NEVER = 10 * LIMIT  # seconds: no test waits for it


@contextmanager
def running(step: Callable[[], object], interval: float | Callable[[], float]) -> Iterator[PeriodicThread]:
    thread = PeriodicThread("walker", step, interval)
    thread.start()
    try:
        yield thread
    finally:
        thread.stop()


def test_the_first_step_is_taken_at_once_and_others_follow():
    steps: list[int] = []
    with running(lambda: steps.append(1), 0.01):
        wait_until(lambda: len(steps) >= 3, "three steps")


def test_no_second_step_is_taken_before_the_interval_is_over():
    steps: list[int] = []
    with running(lambda: steps.append(1), NEVER):
        wait_until(lambda: steps, "a step")
    assert steps == [1]


def test_a_step_that_has_more_to_do_is_followed_at_once():
    left = [True, True, False]
    with running(lambda: left and left.pop(0), NEVER):
        wait_until(lambda: not left, "all is done")


def test_the_interval_may_change():
    steps: list[int] = []
    with running(lambda: steps.append(1), lambda: 0 if len(steps) < 3 else NEVER):
        wait_until(lambda: len(steps) == 3, "three steps")
    assert len(steps) == 3


class Panic(BaseException):
    """What native code throws is no `Exception` either."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DatabaseUnavailable("Postgres does not answer."), "the walker waits: database_unavailable"),
        (RuntimeError("no idea"), "the walker goes on"),
        (Panic("called `Option::unwrap()` on a `None` value"), "the walker goes on"),
    ],
)
def test_it_outlives_what_a_step_raises_and_says_so(error: BaseException, said: str, caplog: pytest.LogCaptureFixture):
    steps: list[int] = []

    def step() -> None:
        steps.append(1)
        if len(steps) == 1:
            raise error

    with running(step, 0.01):
        wait_until(lambda: len(steps) >= 2, "another step")
    assert said in caplog.text


def test_stop_waits_for_the_step_under_way():
    begun, ended = threading.Event(), threading.Event()

    def step() -> None:
        begun.set()
        wait_until(lambda: thread.stopping, "it is to stop")
        time.sleep(0.05)  # it would return before this is over if it did not wait
        ended.set()

    thread = PeriodicThread("walker", step, NEVER)
    thread.start()
    assert begun.wait(LIMIT)
    thread.stop()
    assert ended.is_set()


def test_give_up_waits_for_nothing_and_lets_no_step_begin():
    begun, released = threading.Event(), threading.Event()
    steps: list[int] = []

    def step() -> bool:
        steps.append(1)
        begun.set()
        released.wait(LIMIT)
        return True

    with running(step, 0) as thread:
        assert begun.wait(LIMIT)
        thread.give_up()  # while the step waits
        assert thread.stopping
        released.set()
    assert steps == [1]


def test_what_was_never_started_can_be_stopped():
    steps: list[int] = []
    thread = PeriodicThread("walker", lambda: steps.append(1), 0)
    thread.stop()
    assert steps == []
