"""Connections that wait for a lock for two seconds at most, so that a test fails in place of hanging."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import make_url

from catalog.database import Database


@contextmanager
def impatient_database(database: Database) -> Iterator[Database]:
    """The same database, whose statements raise `DatabaseUnavailable` once they have waited for a lock."""
    url = make_url(database.url).update_query_dict({"options": "-c lock_timeout=2000"})
    impatient = Database(url.render_as_string(hide_password=False))
    try:
        yield impatient
    finally:
        impatient.close()
