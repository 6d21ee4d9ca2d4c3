"""Fixtures that tests of the catalog share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import event

from catalog.database import Database


@pytest.fixture
def statements(database: Database) -> Iterator[list[str]]:
    """The SQL statements that run after the fixture is set up."""
    executed: list[str] = []

    def record(_connection, _cursor, statement, *_):
        executed.append(statement)

    event.listen(database.engine, "before_cursor_execute", record)
    yield executed
    event.remove(database.engine, "before_cursor_execute", record)
