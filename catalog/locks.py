"""Advisory locks in Postgres. Each is held until its transaction ends, so a process that dies releases its locks."""

from __future__ import annotations

from enum import IntEnum

from sqlalchemy import Boolean, ColumnElement, Connection, Integer, cast, func, literal, select
from sqlalchemy.orm import Session


class Lock(IntEnum):
    """The kinds of locks. The value is the first of the two integers that identify an advisory lock; the second is the
    key, or 0 if there is only one lock of the kind.
    """

    FEED = 1  # writes to the change feed
    QUEUE_PAUSE = 2  # shared by claims, exclusive for a pause
    SUBMITTER_JOBS = 3  # counting a submitter's jobs; key: the submitter
    CRAWLS = 4  # held by the process that crawls
    REINDEXES = 5  # held by the process that advances reindexes
    REINDEX_START = 6
    INDEX = 7  # building an index; key: the space's id
    CLUSTERS = 8  # computing clusters; key: the space's id
    MAP = 9  # computing a map; key: the space's id
    MIGRATIONS = 10  # changing the schema


def acquire(session: Session | Connection, lock: Lock, key: int | str = 0) -> None:
    """Acquire the lock, waiting for it."""
    session.execute(select(func.pg_advisory_xact_lock(*_lock_ids(lock, key))))


def acquire_shared(session: Session, lock: Lock, key: int | str = 0) -> None:
    """Acquire the lock in shared mode, waiting for it."""
    session.execute(select(func.pg_advisory_xact_lock_shared(*_lock_ids(lock, key))))


def try_acquire(session: Session, lock: Lock, key: int | str = 0) -> bool:
    """Acquire the lock without waiting. False if another transaction holds it."""
    statement = select(func.pg_try_advisory_xact_lock(*_lock_ids(lock, key), type_=Boolean))
    return session.execute(statement).scalar_one()


def _lock_ids(lock: Lock, key: int | str) -> tuple[ColumnElement[int], ColumnElement[int]]:
    """The two integers that Postgres identifies the lock by. Keys with equal low 32 bits, or with equal hashes of their
    text, share a lock: one then waits for the other, which is harmless.
    """
    key_id = func.hashtext(key) if isinstance(key, str) else literal(_as_int32(key), Integer)
    return cast(int(lock), Integer), cast(key_id, Integer)


def _as_int32(key: int) -> int:
    """The low 32 bits as a signed integer."""
    return (key + 2**31) % 2**32 - 2**31
