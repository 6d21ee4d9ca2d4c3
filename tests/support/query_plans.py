"""The plans that Postgres makes for a statement."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, event, text
from sqlalchemy.orm import Session

from catalog.database import Database
from catalog.tables import Base

LARGE = ("jobs", "models", "job_events")


def know_all_tables(database: Database) -> None:
    """Plans rest on what is known of every table, and other tests may have left what is no longer so."""
    with database.reading() as connection:
        for table in Base.metadata.tables:
            connection.execute(text(f"VACUUM ANALYZE {table}"))


def scans(database: Database, work: Callable[[Session], object], tables: Sequence[str] = LARGE) -> list[str]:
    """What `work` executes, with the plans that read every row of a large table."""
    found: list[str] = []

    def explain(connection: Connection, cursor, statement: str, parameters, *_: object) -> None:
        if not statement.lstrip().upper().startswith(("SELECT", "WITH", "UPDATE", "INSERT", "DELETE")):
            return
        rows = connection.connection.cursor().execute(f"EXPLAIN {statement}", parameters).fetchall()
        plan = "\n".join(row[0] for row in rows)
        if any(f"Seq Scan on {table}" in plan for table in tables):
            found.append(f"{statement}\n{plan}")

    event.listen(database.engine, "before_cursor_execute", explain)
    try:
        with database.transaction() as session:
            work(session)
            session.rollback()
    finally:
        event.remove(database.engine, "before_cursor_execute", explain)
    return found
