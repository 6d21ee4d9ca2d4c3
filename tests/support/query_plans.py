"""Query plans of Postgres."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, event, text
from sqlalchemy.orm import Session

from catalog.database import Database
from catalog.tables import Base

LARGE = ("jobs", "models", "job_events")


def analyze_tables(database: Database) -> None:
    """Update the statistics of all tables, which plans depend on and other tests may have left outdated."""
    with database.autocommit() as connection:
        for table in Base.metadata.tables:
            connection.execute(text(f"VACUUM ANALYZE {table}"))


def sequential_scans(database: Database, work: Callable[[Session], object], tables: Sequence[str] = LARGE) -> list[str]:
    """The statements of `work` whose plan scans a large table sequentially, with these plans."""
    statements: list[str] = []

    def explain(connection: Connection, cursor, statement: str, parameters, *_: object) -> None:
        if not statement.lstrip().upper().startswith(("SELECT", "WITH", "UPDATE", "INSERT", "DELETE")):
            return
        rows = connection.connection.cursor().execute(f"EXPLAIN {statement}", parameters).fetchall()
        plan = "\n".join(row[0] for row in rows)
        if any(f"Seq Scan on {table}" in plan for table in tables):
            statements.append(f"{statement}\n{plan}")

    event.listen(database.engine, "before_cursor_execute", explain)
    try:
        with database.transaction() as session:
            work(session)
            session.rollback()
    finally:
        event.remove(database.engine, "before_cursor_execute", explain)
    return statements
