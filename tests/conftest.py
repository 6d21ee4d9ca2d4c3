"""Real servers for all tests: a Postgres and a Valkey of our own, or those of DATABASE_URL and REDIS_URL.

On a Postgres of yours the tests make and drop a database for each of their processes; on a Redis they use (and empty)
database 15 and, for their further processes, those below it.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the threads of several processes wait for each other

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
from tests.support.ports import free_port
from workers.encoding import encoder
from workers.encoding.continuations import CONTINUATIONS, Continuations
from workers.encoding.features import delta_meaning

NUMBER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))  # of this process among the tests'
REDIS_DATABASE = 15 - NUMBER
MOST_PROCESSES = 8


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Twice as many processes as cores: half of the time tests wait for servers and processes."""
    return min(2 * (os.cpu_count() or 1), MOST_PROCESSES)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    """The servers, with an empty, migrated database; what the settings of this process point to."""
    given_database, given_redis = os.environ.get("DATABASE_URL"), os.environ.get("REDIS_URL")
    with (
        _own_database(given_database) as database_url,
        # not under pytest's own folder, which a second session closes to root's Postgres
        TemporaryDirectory(prefix="deltadex-") as folder,
        _reserved_port(Path(folder) / "valkey"),
        EmbeddedServers(Path(folder), database_url, _own_redis(given_redis)) as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("DATABASE_URL", running.database_url)
        patch.setenv("REDIS_URL", running.redis_url)
        patch.setenv("DELTADEX_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        settings.cache_clear()
        if given_database is None:
            _forgo_durability(running.database_url)
        migrate(running.database_url)
        assert celery.conf.broker_url == running.redis_url  # read now: a failed read would leave Celery's default
        yield running
        celery.pool.force_close_all()
        settings.cache_clear()


@pytest.fixture
def database(servers: EmbeddedServers) -> Iterator[Database]:
    """A database with its tables, all of them empty, and a broker without messages."""
    database = Database(servers.database_url)
    with psycopg.connect(_for_psycopg(servers.database_url), autocommit=True) as connection:
        connection.execute(_clearing())
    with redis.Redis.from_url(servers.redis_url) as broker:
        broker.flushdb()
    yield database
    database.close()


@cache
def _clearing() -> str:
    """All in one message: a statement each takes fifty times as long. So does TRUNCATE where there are few rows."""
    tables = Base.metadata.sorted_tables
    numbers = [f"setval(pg_get_serial_sequence('{table}', 'id'), 1, false)" for table in tables if "id" in table.c]
    numbers.append("setval('claim_turn', 1, false)")
    deleted = [f"DELETE FROM {table}" for table in reversed(tables)]
    return ";".join(["BEGIN", *deleted, f"SELECT {', '.join(numbers)}", "COMMIT"])


@pytest.fixture
def four_continuations(monkeypatch: pytest.MonkeyPatch) -> Continuations:
    """`delta_meaning` reads four texts instead of hundreds, for the time's sake."""
    four = Continuations("four", CONTINUATIONS.texts[9:13])
    monkeypatch.setattr(encoder, "CONTINUATIONS", four)
    monkeypatch.setattr(delta_meaning, "CONTINUATIONS", four)
    return four


@pytest.fixture(scope="session")
def pico_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bases folder that holds `pico/llama`."""
    bases = tmp_path_factory.mktemp("bases")
    pico.make_base(bases / pico.BASE_ID)
    return bases


@contextmanager
def _reserved_port(folder: Path) -> Iterator[None]:
    """A port for Valkey that nobody else is given while a test keeps it down."""
    folder.mkdir()
    (folder / "port").write_text(str(free_port()))
    yield


def _forgo_durability(database_url: str) -> None:
    """Have commits not wait for the disk: what a killed Postgres had committed outlives it all the same, in the
    system's memory.
    """
    with psycopg.connect(_for_psycopg(database_url), autocommit=True) as connection:
        for statement in ("fsync = off", "full_page_writes = off"):
            connection.execute(f"ALTER SYSTEM SET {statement}")
        connection.execute("SELECT pg_reload_conf()")


def _for_psycopg(database_url: str) -> str:
    return make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)


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
        address = self._given.render_as_string(hide_password=False)
        with psycopg.connect(_for_psycopg(address), autocommit=True) as connection:
            connection.execute(statement)


def _own_redis(given: str | None) -> str | None:
    return make_url(given).set(database=str(REDIS_DATABASE)).render_as_string(hide_password=False) if given else None
