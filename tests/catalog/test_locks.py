from __future__ import annotations

import pytest

from catalog import locks
from catalog.database import Database
from catalog.locks import Lock


def test_held_lock_cannot_be_acquired(database: Database):
    with database.transaction() as holder, database.transaction() as other:
        assert locks.try_acquire(holder, Lock.MAP, 7)
        assert not locks.try_acquire(other, Lock.MAP, 7)


def test_lock_is_released_with_its_transaction(database: Database):
    with database.transaction() as holder:
        locks.acquire(holder, Lock.MAP, 7)
    with database.transaction() as other:
        assert locks.try_acquire(other, Lock.MAP, 7)


@pytest.mark.parametrize(("kind", "key"), [(Lock.MAP, 8), (Lock.CLUSTERS, 7), (Lock.INDEX, 7)])
def test_locks_of_other_kinds_or_keys_are_independent(database: Database, kind: Lock, key: int):
    with database.transaction() as holder, database.transaction() as other:
        locks.acquire(holder, Lock.MAP, 7)
        assert locks.try_acquire(other, kind, key)


def test_shared_locks_are_compatible(database: Database):
    with database.transaction() as holder, database.transaction() as other:
        locks.acquire_shared(holder, Lock.QUEUE_PAUSE)
        locks.acquire_shared(other, Lock.QUEUE_PAUSE)
        assert not locks.try_acquire(other, Lock.QUEUE_PAUSE)


@pytest.mark.parametrize("key", [-1, 0, 2**31 - 1, 2**31, 2**32 - 1, 2**62, "text"])
def test_any_key_can_be_locked(database: Database, key: int | str):
    with database.transaction() as holder, database.transaction() as other:
        assert locks.try_acquire(holder, Lock.SUBMITTER_JOBS, key)
        assert not locks.try_acquire(other, Lock.SUBMITTER_JOBS, key)
