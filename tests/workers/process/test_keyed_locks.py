from __future__ import annotations

import threading

import pytest

from tests.support.waiting import wait_until
from workers.process.cancellation import Cancelled, cancel_scope
from workers.process.keyed_locks import KeyedLocks

LIMIT = 30  # seconds


def test_other_keys_are_not_waited_for():
    locks = KeyedLocks()
    with locks.hold("one"), locks.hold("other"):
        pass


def test_second_holder_of_a_key_waits_for_the_first():
    locks, order = KeyedLocks(), list[str]()
    waiting = threading.Event()

    def hold_second() -> None:
        with locks.hold("key", waiting.set):
            order.append("second")

    thread = threading.Thread(target=hold_second)
    with locks.hold("key"):
        thread.start()
        assert waiting.wait(LIMIT)
        order.append("first")
    thread.join(LIMIT)
    assert order == ["first", "second"]


def test_cancelled_waiter_gives_up():
    locks = KeyedLocks()
    gave_up = threading.Event()

    def wait() -> None:
        with cancel_scope(lambda: True), pytest.raises(Cancelled), locks.hold("key"):
            pass
        gave_up.set()

    with locks.hold("key"):
        threading.Thread(target=wait).start()
        assert gave_up.wait(LIMIT)


def test_lock_is_released_by_an_error_and_nothing_is_kept_of_it():
    locks = KeyedLocks()
    with pytest.raises(KeyError), locks.hold("key"):
        raise KeyError
    with locks.hold("key"):
        wait_until(lambda: locks._held == {"key"}, "the lock is held again")
    assert locks._held == set()
