"""The connection to Postgres. `transaction()` is the only place that commits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import create_engine
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from catalog.errors import DatabaseUnavailable

CONNECT_TIMEOUT = 5  # seconds


class Database:
    """One Postgres, shared by the threads of a process."""

    def __init__(self, url: str) -> None:
        self.url = url
        # a pre-ping lets the pool outlive a restart of the server
        self.engine = create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": CONNECT_TIMEOUT})

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that commits when the block ends and rolls back when it raises.

        What was registered with `after_commit` runs once the commit has succeeded, and never otherwise.
        Raises `DatabaseUnavailable` when the server cannot be reached or goes away.
        """
        try:
            with Session(self.engine, expire_on_commit=False) as session, session.begin():
                yield session
        except (OperationalError, InterfaceError) as error:
            raise DatabaseUnavailable("Postgres cannot be reached; the request changed nothing.") from error
        for callback in session.info.pop(_AFTER_COMMIT, []):
            callback()

    def close(self) -> None:
        self.engine.dispose()


_AFTER_COMMIT = "after_commit"


def after_commit(session: Session, callback: Callable[[], None]) -> None:
    """Run `callback` once the session's transaction is committed."""
    session.info.setdefault(_AFTER_COMMIT, []).append(callback)
