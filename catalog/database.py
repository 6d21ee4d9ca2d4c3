"""The connection to Postgres. `transaction()` is the only place that commits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from psycopg.errors import ReadOnlySqlTransaction
from sqlalchemy import (
    ColumnElement,
    Connection,
    ExceptionContext,
    SQLColumnExpression,
    create_engine,
    event,
    func,
    make_url,
    text,
)
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from catalog.errors import DatabaseUnavailable

CONNECT_TIMEOUT = 5  # seconds

# A host that was cut off in the middle of a transaction holds its locks until Postgres notices: that would be hours
# with the systems' own defaults. Both ends look after the other, and give up after 25 seconds without a sign of it.
_PROBES = {"idle": 10, "interval": 5, "count": 3}  # seconds, seconds, how many
_GIVE_UP = 25_000  # milliseconds


class Database:
    """One Postgres, shared by the threads of a process."""

    def __init__(self, url: str) -> None:
        self.url = url
        # a pre-ping lets the pool outlive a restart of the server
        self.engine = create_engine(
            url,
            pool_pre_ping=True,
            pool_size=10,
            max_overflow=30,  # as many as the API has threads
            connect_args=_connect_args(url),
            json_serializer=lambda value: json.dumps(_all_storable(value), ensure_ascii=False),
            hide_parameters=True,  # they may be somebody's examples, and errors are logged
        )
        event.listen(self.engine, "handle_error", _leave_a_former_primary)
        self._autocommit = self.engine.execution_options(isolation_level="AUTOCOMMIT")  # the same pool

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that commits when the block ends and rolls back when it raises.

        What was registered with `after_commit` runs once the commit has succeeded, and never otherwise.
        Raises `DatabaseUnavailable` when the server cannot be reached, goes away or is read-only, as in a failover.
        """
        with _reachable(), Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session
        for callback in session.info.pop(_AFTER_COMMIT, []):
            callback()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection on which each statement stands for itself: half the round trips of a transaction, for reading
        with one statement. Raises `DatabaseUnavailable`.
        """
        with _reachable(), self._autocommit.connect() as connection:
            yield connection

    def ping(self) -> None:
        """Raises `DatabaseUnavailable`."""
        with self.reading() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        self.engine.dispose()


def _connect_args(url: str) -> dict[str, Any]:
    """Parameters of libpq, and through `options` of the server's end (given ones win)."""
    ours = {**{f"tcp_keepalives_{name}": value for name, value in _PROBES.items()}, "tcp_user_timeout": _GIVE_UP}
    given = make_url(url).query.get("options", "")
    return {
        "connect_timeout": CONNECT_TIMEOUT,
        **{f"keepalives_{name}": value for name, value in _PROBES.items()},
        "tcp_user_timeout": _GIVE_UP,
        "options": " ".join([*(f"-c {name}={value}" for name, value in ours.items()), str(given)]).strip(),
    }


@contextmanager
def _reachable() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        raise DatabaseUnavailable("Postgres cannot be reached, or has too much to do; try again.") from error
    except InternalError as error:
        if not isinstance(error.orig, ReadOnlySqlTransaction):
            raise
        raise DatabaseUnavailable("Postgres takes no changes at the moment; try again.") from error


def _leave_a_former_primary(context: ExceptionContext) -> None:
    """Have the pool connect anew after a failover: a former primary would go on refusing every change."""
    if isinstance(context.original_exception, ReadOnlySqlTransaction):
        context.is_disconnect = True


_AFTER_COMMIT = "after_commit"


def after_commit(session: Session, callback: Callable[[], None]) -> None:
    """Run `callback` once the session's transaction is committed."""
    session.info.setdefault(_AFTER_COMMIT, []).append(callback)


def storable(text: str) -> str:
    """A text that Postgres takes: what strangers write may hold NUL and halves of surrogate pairs."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _all_storable(value: Any) -> Any:
    """The same JSON with every text in it `storable`."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {_all_storable(name): _all_storable(each) for name, each in value.items()}
    return [_all_storable(each) for each in value] if isinstance(value, list | tuple) else value


NOW: ColumnElement[datetime] = func.now()  # when the transaction began, by the clock of the server


def seconds(value: float | SQLColumnExpression[Any]) -> ColumnElement[timedelta]:
    """An interval for a statement."""
    return func.make_interval(0, 0, 0, 0, 0, 0, value)
