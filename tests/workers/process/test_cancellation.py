from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from workers.process.cancellation import Stopped, check, heeding


def test_work_that_nobody_gave_up_goes_on():
    check()
    with heeding(lambda: False):
        check()


def test_work_that_was_given_up_stops_and_what_comes_after_does_not():
    with heeding(lambda: True), pytest.raises(Stopped):
        check()
    check()


def test_the_work_of_another_thread_goes_on():
    with heeding(lambda: True), ThreadPoolExecutor(1) as pool:
        pool.submit(check).result()
