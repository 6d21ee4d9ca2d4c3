"""A server of the tests that goes away for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from app.deployment.servers import Server
from catalog.database import Database


@contextmanager
def away(server: Server | None) -> Iterator[None]:
    """The server is crashed for the length of the block; skips the test where it is not ours to crash."""
    if server is None:
        pytest.skip("the address of that server was given: it is not ours to stop")
    server.kill()
    try:
        assert not server.answers()
        yield
    finally:
        server.start()


@contextmanager
def without_its_table(database: Database, name: str) -> Iterator[None]:
    """Postgres answers, and with an error that is none of its being away."""
    with database.transaction() as session:
        session.execute(text(f"ALTER TABLE {name} RENAME TO {name}_elsewhere"))
    try:
        yield
    finally:
        with database.transaction() as session:
            session.execute(text(f"ALTER TABLE {name}_elsewhere RENAME TO {name}"))
