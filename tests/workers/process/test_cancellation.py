from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from workers.process.cancellation import Stopped, check, heeding


def goes_on() -> bool:
    """Whether work that looks whether it was given up goes on."""
    try:
        check()
    except Stopped:
        return False
    return True


def test_work_that_nobody_gave_up_goes_on():
    with heeding(lambda: False):
        assert goes_on()


def test_work_that_nobody_may_give_up_goes_on():
    assert goes_on()


def test_work_that_was_given_up_stops():
    with heeding(lambda: True), pytest.raises(Stopped):
        check()


def test_what_comes_after_work_that_was_given_up_goes_on():
    with heeding(lambda: True):
        assert not goes_on()
    assert goes_on()


def test_the_work_of_another_thread_goes_on():
    with heeding(lambda: True), ThreadPoolExecutor(1) as pool:
        assert pool.submit(goes_on).result()
