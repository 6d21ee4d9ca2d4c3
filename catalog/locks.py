"""The advisory locks in Postgres. Each is held until its transaction ends, so a process that dies leaves none."""

from __future__ import annotations

from enum import IntEnum

from sqlalchemy import Boolean, ColumnElement, Integer, cast, func, literal, select
from sqlalchemy.orm import Session


class Lock(IntEnum):
    """What a lock is for. Its number is the first of the two that Postgres knows a lock by; the second is the id of
    what is locked, or 0 where there is only one.
    """

    FEED = 1  # writes to the change feed
    QUEUE_PAUSE = 2  # claims share it, a pause waits for them
    SUBMITTER_JOBS = 3  # counting a submitter's jobs, by the hash of its key
    CRAWLS = 4  # the process that crawls
    REINDEXES = 5  # the process that works on reindexes
    REINDEX_START = 6
    INDEX = 7  # building a space's index, by the space
    CLUSTERS = 8  # clustering a space, by the space
    MAP = 9  # laying out a space's map, by the space


def acquire(session: Session, lock: Lock, key: int | str = 0) -> None:
    """Wait for the lock."""
    session.execute(select(func.pg_advisory_xact_lock(*_numbers(lock, key))))


def acquire_shared(session: Session, lock: Lock, key: int | str = 0) -> None:
    """Wait for the lock, beside others that share it."""
    session.execute(select(func.pg_advisory_xact_lock_shared(*_numbers(lock, key))))


def try_acquire(session: Session, lock: Lock, key: int | str = 0) -> bool:
    """Take the lock; False where another transaction holds it."""
    statement = select(func.pg_try_advisory_xact_lock(*_numbers(lock, key), type_=Boolean))
    return session.execute(statement).scalar_one()


def _numbers(lock: Lock, key: int | str) -> tuple[ColumnElement[int], ColumnElement[int]]:
    """Keys that share their last 32 bits, or the hash of their text, share a lock: one then waits for the other."""
    number = func.hashtext(key) if isinstance(key, str) else literal(_last_32_bits(key), Integer)
    return cast(int(lock), Integer), cast(number, Integer)


def _last_32_bits(key: int) -> int:
    """As the signed number that Postgres takes."""
    return (key + 2**31) % 2**32 - 2**31
