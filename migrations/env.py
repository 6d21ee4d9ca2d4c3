"""Alembic's entry point. The database URL comes from the settings, or from the caller's `database_url` attribute."""

from __future__ import annotations

from alembic import context
from psycopg.errors import LockNotAvailable
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from catalog import locks
from catalog.errors import DatabaseUnavailable
from catalog.locks import Lock
from catalog.settings import settings
from catalog.tables import Base

# A statement that waits for a table makes everybody who wants it afterwards wait, too. It gives up, nothing is changed,
# and the migrations can be run again.
LOCK_TIMEOUT = "10s"


def run() -> None:
    """Run the migrations in one transaction. Raises `DatabaseUnavailable` if a table is in use for `LOCK_TIMEOUT`."""
    url = context.config.attributes.get("database_url") or settings().require_database_url()
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
        with context.begin_transaction():
            locks.acquire(connection, Lock.MIGRATIONS)  # another process that migrates is waited for, without a timeout
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
            try:
                context.run_migrations()
            except OperationalError as error:
                if not isinstance(error.orig, LockNotAvailable):
                    raise
                raise DatabaseUnavailable(
                    f"The schema was not changed, because another transaction has used a table for {LOCK_TIMEOUT}. "
                    "Stop the workers and API processes, or run the migrations again later."
                ) from error


run()
