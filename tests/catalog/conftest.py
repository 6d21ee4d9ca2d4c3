"""What tests of the catalog share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import event

from catalog.database import Database


@pytest.fixture
def statements(database: Database) -> Iterator[list[str]]:
    """The SQL that is run from here on."""
    seen: list[str] = []

    def note(_connection, _cursor, statement, *_):
        seen.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    yield seen
    event.remove(database.engine, "before_cursor_execute", note)
