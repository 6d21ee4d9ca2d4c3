"""Servers for all tests: an embedded Postgres and Valkey, or the external ones of DATABASE_URL and REDIS_URL.

On an external Postgres each test process creates a database and drops it at the end. On an external Redis the first
process uses and empties database 15, the second one database 14, and so on.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, for parallel test processes

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import psycopg
import pytest
import redis
from sqlalchemy import make_url

from app.deployment.embedded import EmbeddedServers
from app.deployment.processes import migrate
from catalog.database import Database
from catalog.queue import celery
from catalog.settings import settings, with_driver
from catalog.tables import Base
from tests.support import pico
from tests.support.hub_lists import hub_lists  # noqa: F401  (a fixture)
from tests.support.hub_server import (
    hub_server,  # noqa: F401  (fixtures)
    scripted_hub,  # noqa: F401  (fixtures)
)
from tests.support.keys import ADMIN_KEY
from tests.support.ports import free_port
from workers.encoding import encoder
from workers.encoding.continuations import CONTINUATIONS, Continuations
from workers.encoding.features import delta_meaning

PROCESS_INDEX = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))  # among the test processes
REDIS_DATABASE = 15 - PROCESS_INDEX
MAX_PROCESSES = 8


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Run two processes per core, because tests spend half of their time waiting for servers and processes."""
    return min(2 * (os.cpu_count() or 1), MAX_PROCESSES)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    """The servers, with an empty, migrated database. The settings of this process point to them."""
    external_database, external_redis = os.environ.get("DATABASE_URL"), os.environ.get("REDIS_URL")
    with (
        _TemporaryDatabase(external_database) as database_url,
        # not in pytest's folder: a second test session makes that inaccessible for the user that Postgres runs as
        TemporaryDirectory(prefix="deltadex-") as folder,
        _reserved_port(Path(folder) / "valkey"),
        EmbeddedServers(Path(folder), database_url, _redis_database(external_redis)) as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("DATABASE_URL", running.database_url)
        patch.setenv("REDIS_URL", running.redis_url)
        patch.setenv("DELTADEX_RATE_LIMIT", "0")  # all tests of a minute have the same address
        patch.setenv("DELTADEX_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        patch.setenv("ADMIN_API_KEY", ADMIN_KEY)
        settings.cache_clear()
        if external_database is None:
            _disable_durability(running.database_url)
        migrate(running.database_url)
        # Celery reads the setting once, and after a failed read it would keep its default
        assert celery.conf.broker_url == running.redis_url
        yield running
        celery.pool.force_close_all()
        settings.cache_clear()


@pytest.fixture
def database(servers: EmbeddedServers) -> Iterator[Database]:
    """A database with empty tables, and a broker without messages."""
    database = Database(servers.database_url)
    with psycopg.connect(_for_psycopg(servers.database_url), autocommit=True) as connection:
        connection.execute(_clear_statement())
    with redis.Redis.from_url(servers.redis_url) as broker:
        broker.flushdb()
    yield database
    database.close()


@cache
def _clear_statement() -> str:
    """SQL that empties all tables in one message. One message per table, or TRUNCATE, takes fifty times as long."""
    tables = Base.metadata.sorted_tables
    resets = [f"setval(pg_get_serial_sequence('{table}', 'id'), 1, false)" for table in tables if "id" in table.c]
    resets.append("setval('claim_turn', 1, false)")
    deletes = [f"DELETE FROM {table}" for table in reversed(tables)]
    return ";".join(["BEGIN", *deletes, f"SELECT {', '.join(resets)}", "COMMIT"])


@pytest.fixture
def four_continuations(monkeypatch: pytest.MonkeyPatch) -> Continuations:
    """Make `delta_meaning` read four continuations instead of hundreds, to save time."""
    continuations = Continuations("four", CONTINUATIONS.texts[9:13])
    monkeypatch.setattr(encoder, "CONTINUATIONS", continuations)
    monkeypatch.setattr(delta_meaning, "CONTINUATIONS", continuations)
    return continuations


@pytest.fixture(scope="session")
def pico_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of base models that contains `pico/llama`."""
    bases = tmp_path_factory.mktemp("bases")
    pico.make_base(bases / pico.BASE_ID)
    return bases


@contextmanager
def _reserved_port(folder: Path) -> Iterator[None]:
    """Reserve a port for Valkey, so that no other process takes it while a test keeps Valkey down."""
    folder.mkdir()
    (folder / "port").write_text(str(free_port()))
    yield


def _disable_durability(database_url: str) -> None:
    """Let commits return before they are on disk. They still survive a killed Postgres, in the memory of the system."""
    with psycopg.connect(_for_psycopg(database_url), autocommit=True) as connection:
        for statement in ("fsync = off", "full_page_writes = off"):
            connection.execute(f"ALTER SYSTEM SET {statement}")
        connection.execute("SELECT pg_reload_conf()")


def _for_psycopg(database_url: str) -> str:
    return make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)


class _TemporaryDatabase:
    """A new database on an external server, dropped at the end. None without an external server."""

    def __init__(self, server_url: str | None) -> None:
        self._name = f"deltadex_test_{uuid4().hex[:12]}"
        self._server_url = make_url(with_driver(server_url)) if server_url else None

    def __enter__(self) -> str | None:
        if self._server_url is None:
            return None
        self._execute(f"CREATE DATABASE {self._name}")
        return self._server_url.set(database=self._name).render_as_string(hide_password=False)

    def __exit__(self, *_: object) -> None:
        if self._server_url is not None:
            self._execute(f"DROP DATABASE {self._name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        assert self._server_url is not None
        address = self._server_url.render_as_string(hide_password=False)
        with psycopg.connect(_for_psycopg(address), autocommit=True) as connection:
            connection.execute(statement)


def _redis_database(server_url: str | None) -> str | None:
    """The URL of this process's database on an external Redis."""
    if server_url is None:
        return None
    return make_url(server_url).set(database=str(REDIS_DATABASE)).render_as_string(hide_password=False)
