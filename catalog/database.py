"""The connection to Postgres. `transaction()` is the only place that commits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVarTuple

from psycopg.errors import LockNotAvailable, QueryCanceled, ReadOnlySqlTransaction
from sqlalchemy import (
    ColumnElement,
    Connection,
    ExceptionContext,
    Select,
    SQLColumnExpression,
    create_engine,
    event,
    func,
    make_url,
    text,
)
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import InstrumentedAttribute, Session

from catalog.errors import CatalogError, DatabaseBusy, DatabaseUnavailable

Columns = TypeVarTuple("Columns")

CONNECT_TIMEOUT = 5  # seconds
KEPT_CONNECTIONS = 10  # at most, of a pool that is not in use
BUSY_RETRY_AFTER = 2.0  # seconds after which a client should try again
MAX_ERROR_MESSAGE = 4_000  # characters that are stored

# A client that loses its network within a transaction holds its locks until Postgres notices, which takes hours with
# the default settings. With these, both ends close a dead connection after 25 seconds.
_KEEPALIVE = {"idle": 10, "interval": 5, "count": 3}  # seconds, seconds, probes
_TCP_TIMEOUT = 25_000  # milliseconds


@dataclass(frozen=True)
class Limits:
    """Limits of a pool: its connections, the seconds that a transaction waits for one of them, and the seconds that a
    statement may run and that it may wait for a lock (0: no limit).
    """

    connections: int = 40
    connection_timeout: float = 30.0
    statement_timeout: float = 0.0
    lock_timeout: float = 0.0


class Database:
    """A connection pool to Postgres, shared by the threads of a process."""

    def __init__(self, url: str, limits: Limits = Limits()) -> None:
        self.url = url
        self._limits = limits
        kept = min(limits.connections, KEPT_CONNECTIONS)
        # the pre-ping lets the pool survive a restart of the server
        self.engine = create_engine(
            url,
            pool_pre_ping=True,
            pool_size=kept,
            max_overflow=limits.connections - kept,
            pool_timeout=limits.connection_timeout,
            connect_args=_connect_args(url, limits),
            json_serializer=lambda value: json.dumps(_storable_json(value), ensure_ascii=False),
            hide_parameters=True,  # errors are logged, and parameters may contain users' examples
        )
        event.listen(self.engine, "handle_error", _disconnect_from_former_primary)
        self._snapshot = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._autocommit = self.engine.execution_options(isolation_level="AUTOCOMMIT")  # the same pool

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """A session for reading, without time limits: all its statements see the catalog as it was at the first one.
        Raises `DatabaseUnavailable` and `DatabaseBusy`.
        """
        with _reachable(), Session(self._snapshot, expire_on_commit=False) as session, session.begin():
            self._lift_limits(session)
            yield session

    @contextmanager
    def transaction(self, *, timeouts: bool = True) -> Iterator[Session]:
        """A session that commits when the block ends and rolls back when it raises. Without `timeouts`, its statements
        may run and wait for locks as long as they need.

        Callbacks registered with `after_commit` run only after the commit has succeeded. Raises `DatabaseUnavailable`
        if the server cannot be reached, disconnects, or is read-only during a failover, and `DatabaseBusy` at a limit.
        """
        with _reachable(), Session(self.engine, expire_on_commit=False) as session, session.begin():
            if not timeouts:
                self._lift_limits(session)
            yield session
        for callback in session.info.pop(_AFTER_COMMIT, []):
            callback()

    @contextmanager
    def autocommit(self) -> Iterator[Connection]:
        """A connection in autocommit mode, for a single read: it needs half the round trips of a transaction. Raises
        `DatabaseUnavailable` and `DatabaseBusy`.
        """
        with _reachable(), self._autocommit.connect() as connection:
            yield connection

    def _lift_limits(self, session: Session) -> None:
        if self._limits.statement_timeout or self._limits.lock_timeout:
            session.execute(text("SET LOCAL statement_timeout = 0"))
            session.execute(text("SET LOCAL lock_timeout = 0"))

    def ping(self) -> None:
        """Raise `DatabaseUnavailable` if the server does not answer."""
        with self.autocommit() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        self.engine.dispose()


def _connect_args(url: str, limits: Limits) -> dict[str, Any]:
    """Keepalive settings for both ends of a connection: as libpq parameters for the client, as `options` for the
    server, with its time limits. `options` given in the URL take precedence.
    """
    server_settings = {
        **{f"tcp_keepalives_{name}": value for name, value in _KEEPALIVE.items()},
        "tcp_user_timeout": _TCP_TIMEOUT,
    }
    for name in ("statement_timeout", "lock_timeout"):
        if limit := getattr(limits, name):
            server_settings[name] = round(1000 * limit)
    url_options = make_url(url).query.get("options", "")
    options = [*(f"-c {name}={value}" for name, value in server_settings.items()), str(url_options)]
    return {
        "connect_timeout": CONNECT_TIMEOUT,
        **{f"keepalives_{name}": value for name, value in _KEEPALIVE.items()},
        "tcp_user_timeout": _TCP_TIMEOUT,
        "options": " ".join(options).strip(),
    }


@contextmanager
def _reachable() -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise DatabaseBusy("All connections to Postgres are in use. Try again.", BUSY_RETRY_AFTER) from error
    except (OperationalError, InterfaceError) as error:
        raise unavailable(error.orig) from error
    except InternalError as error:
        if not isinstance(error.orig, ReadOnlySqlTransaction):
            raise
        raise DatabaseUnavailable("Postgres is read-only at the moment. Try again.") from error


def unavailable(error: BaseException | None) -> DatabaseUnavailable:
    """What an error of the driver, of a kind that is no mistake of the statement, says about Postgres."""
    if isinstance(error, QueryCanceled):
        return DatabaseBusy("Postgres needed too long for this request. Try again, or ask for less.", BUSY_RETRY_AFTER)
    if isinstance(error, LockNotAvailable):
        return DatabaseBusy("Another request holds what this one has to change. Try again.", BUSY_RETRY_AFTER)
    return DatabaseUnavailable("Postgres is unreachable or overloaded. Try again.")


def _disconnect_from_former_primary(context: ExceptionContext) -> None:
    """Make the pool reconnect after a failover: a former primary would keep rejecting writes."""
    if isinstance(context.original_exception, ReadOnlySqlTransaction):
        context.is_disconnect = True


_AFTER_COMMIT = "after_commit"


def after_commit(session: Session, callback: Callable[[], None]) -> None:
    """Run `callback` once the session's transaction is committed."""
    session.info.setdefault(_AFTER_COMMIT, []).append(callback)


def storable(text: str) -> str:
    """Replace NUL characters and unpaired surrogates, which Postgres rejects and untrusted text may contain."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _storable_json(value: Any) -> Any:
    """A JSON value in which every string is made `storable`."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {_storable_json(name): _storable_json(member) for name, member in value.items()}
    return [_storable_json(item) for item in value] if isinstance(value, list | tuple) else value


NOW: ColumnElement[datetime] = func.now()  # the start of the transaction, by the server's clock


def seconds(value: float | SQLColumnExpression[Any]) -> ColumnElement[timedelta]:
    """An SQL interval of that many seconds."""
    return func.make_interval(0, 0, 0, 0, 0, 0, value)


def newest_first(
    statement: Select[*Columns], ids: InstrumentedAttribute[int], before: int | None, limit: int
) -> Select[*Columns]:
    """Page a statement: up to `limit` rows with an id below `before`, newest first."""
    if before is not None:
        statement = statement.where(ids < before)
    return statement.order_by(ids.desc()).limit(limit)


@dataclass(frozen=True)
class ErrorRecord:
    """An error as it is stored on jobs, runs, crawls, reindexes, maps and index builds: its code, and its message made
    storable and cut to `MAX_ERROR_MESSAGE` characters.
    """

    code: str
    message: str

    @classmethod
    def from_error(cls, error: Exception) -> ErrorRecord:
        """The record of an error. For anything but a `CatalogError`, the message is its repr."""
        if isinstance(error, CatalogError):
            return cls(error.code, storable(error.message)[:MAX_ERROR_MESSAGE])
        return cls(CatalogError.code, storable(repr(error))[:MAX_ERROR_MESSAGE])

    def columns(self) -> dict[str, str]:
        """The values by column name, which is the same in every table that stores errors."""
        return {"error_code": self.code, "error_message": self.message}

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"
