from __future__ import annotations

import pytest

from catalog import locks
from catalog.database import Database
from catalog.locks import Lock


def test_a_held_lock_cannot_be_taken(database: Database):
    with database.transaction() as holder, database.transaction() as other:
        assert locks.try_acquire(holder, Lock.MAP, 7)
        assert not locks.try_acquire(other, Lock.MAP, 7)


def test_a_lock_is_free_after_its_transaction(database: Database):
    with database.transaction() as holder:
        locks.acquire(holder, Lock.MAP, 7)
    with database.transaction() as other:
        assert locks.try_acquire(other, Lock.MAP, 7)


@pytest.mark.parametrize(("kind", "key"), [(Lock.MAP, 8), (Lock.CLUSTERS, 7), (Lock.INDEX, 7)])
def test_locks_of_another_kind_or_key_are_free(database: Database, kind: Lock, key: int):
    with database.transaction() as holder, database.transaction() as other:
        locks.acquire(holder, Lock.MAP, 7)
        assert locks.try_acquire(other, kind, key)


def test_a_lock_is_shared_beside_others_that_share_it(database: Database):
    with database.transaction() as holder, database.transaction() as other:
        locks.acquire_shared(holder, Lock.QUEUE_PAUSE)
        locks.acquire_shared(other, Lock.QUEUE_PAUSE)
        assert not locks.try_acquire(other, Lock.QUEUE_PAUSE)


@pytest.mark.parametrize("key", [-1, 0, 2**31 - 1, 2**31, 2**32 - 1, 2**62, "text"])
def test_every_key_can_be_locked(database: Database, key: int | str):
    with database.transaction() as holder, database.transaction() as other:
        assert locks.try_acquire(holder, Lock.SUBMITTER_JOBS, key)
        assert not locks.try_acquire(other, Lock.SUBMITTER_JOBS, key)
