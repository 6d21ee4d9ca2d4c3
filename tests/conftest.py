"""Real servers for all tests: a Postgres and a Valkey of our own, or those of DATABASE_URL and REDIS_URL.

On a Postgres of yours the tests make and drop a database of their own; on a Redis they use (and empty) database 15.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import psycopg
import pytest
import redis
from sqlalchemy import make_url, text

from app.cli.embedded import EmbeddedServers
from app.cli.processes import migrate
from catalog.database import Database
from catalog.queue import celery
from catalog.settings import settings, with_driver
from catalog.tables import Base
from tests import pico
from tests.hub_lists import hub_lists  # noqa: F401  (a fixture)
from tests.hub_server import hub_server, scripted_hub  # noqa: F401  (fixtures)

REDIS_DATABASE = 15
EXTERNAL = bool(os.environ.get("DATABASE_URL") or os.environ.get("REDIS_URL"))  # servers that are not ours to kill


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    """The servers, with an empty, migrated database; what the settings of this process point to."""
    given_database, given_redis = os.environ.get("DATABASE_URL"), os.environ.get("REDIS_URL")
    with (
        _own_database(given_database) as database_url,
        # not under pytest's own folder, which a second session closes to root's Postgres
        TemporaryDirectory(prefix="deltadex-") as folder,
        EmbeddedServers(Path(folder), database_url, _own_redis(given_redis)) as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("DATABASE_URL", running.database_url)
        patch.setenv("REDIS_URL", running.redis_url)
        patch.setenv("DELTADEX_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        settings.cache_clear()
        migrate(running.database_url)
        yield running
        celery.pool.force_close_all()
        settings.cache_clear()


@pytest.fixture
def database(servers: EmbeddedServers) -> Iterator[Database]:
    """A database with its tables, all of them empty, and a broker without messages."""
    database = Database(servers.database_url)
    tables = Base.metadata.sorted_tables
    numbers = (f"setval(pg_get_serial_sequence('{table}', 'id'), 1, false)" for table in tables if "id" in table.c)
    with database.transaction() as session:
        for table in reversed(tables):  # TRUNCATE takes fifteen times as long where there are few rows
            session.execute(table.delete())
        session.execute(text(f"SELECT {', '.join(numbers)}"))
    with redis.Redis.from_url(servers.redis_url) as broker:
        broker.flushdb()
    yield database
    database.close()


@pytest.fixture(scope="session")
def pico_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bases folder that holds `pico/llama`."""
    bases = tmp_path_factory.mktemp("bases")
    pico.make_base(bases / pico.BASE_ID)
    return bases


class _own_database:
    """A database of our own on a given server, dropped at the end; None where no server is given."""

    def __init__(self, given: str | None) -> None:
        self._name = f"deltadex_test_{uuid4().hex[:12]}"
        self._given = make_url(with_driver(given)) if given else None

    def __enter__(self) -> str | None:
        if self._given is None:
            return None
        self._execute(f"CREATE DATABASE {self._name}")
        return self._given.set(database=self._name).render_as_string(hide_password=False)

    def __exit__(self, *_: object) -> None:
        if self._given is not None:
            self._execute(f"DROP DATABASE {self._name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        assert self._given is not None
        address = self._given.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement)


def _own_redis(given: str | None) -> str | None:
    return make_url(given).set(database=str(REDIS_DATABASE)).render_as_string(hide_password=False) if given else None
