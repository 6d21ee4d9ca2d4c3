from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from workers.process.cancellation import Cancelled, cancel_scope, raise_if_cancelled


def continues() -> bool:
    """Whether work that checks for cancellation continues."""
    try:
        raise_if_cancelled()
    except Cancelled:
        return False
    return True


def test_work_continues_in_a_scope_that_is_not_cancelled():
    with cancel_scope(lambda: False):
        assert continues()


def test_work_continues_without_a_scope():
    assert continues()


def test_cancelled_scope_raises():
    with cancel_scope(lambda: True), pytest.raises(Cancelled):
        raise_if_cancelled()


def test_work_after_a_cancelled_scope_continues():
    with cancel_scope(lambda: True):
        assert not continues()
    assert continues()


def test_scope_does_not_reach_other_threads():
    with cancel_scope(lambda: True), ThreadPoolExecutor(1) as pool:
        assert pool.submit(continues).result()
