"""Simulated outages: a server that is down, and a missing table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from app.deployment.servers import Server
from catalog.database import Database


@contextmanager
def server_down(server: Server | None) -> Iterator[None]:
    """Crash the server, and start it again after the block. Skips the test if the server is external (None)."""
    if server is None:
        pytest.skip("an external server is not stopped by tests")
    server.kill()
    try:
        assert not server.answers()
        yield
    finally:
        server.start()


@contextmanager
def missing_table(database: Database, name: str) -> Iterator[None]:
    """Rename a table during the block, so that Postgres answers statements on it with an error."""
    with database.transaction() as session:
        session.execute(text(f"ALTER TABLE {name} RENAME TO {name}_renamed"))
    try:
        yield
    finally:
        with database.transaction() as session:
            session.execute(text(f"ALTER TABLE {name}_renamed RENAME TO {name}"))
