"""A Postgres that answers but is read-only, like a former primary after a failover."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.exc import DataError, InternalError

from app.deployment.embedded import EmbeddedServers
from app.main import create_app
from catalog.database import Database
from catalog.errors import DatabaseUnavailable
from catalog.settings import settings
from tests.support import catalog as entries
from tests.support.keys import AS_ADMIN
from tests.support.outage import missing_table
from tests.support.problem_documents import documented_problem
from tests.support.waiting import wait_until

LIMIT = 20  # seconds


def set_read_only(database: Database, value: str) -> None:
    address = database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        connection.execute("SELECT pg_reload_conf()")
    deadline = time.monotonic() + LIMIT
    while True:  # the processes of the server reload the setting one after another
        with psycopg.connect(address) as connection:
            row = connection.execute("SHOW default_transaction_read_only").fetchone()
        if row == (value,):
            return
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def read_only(servers: EmbeddedServers, database: Database) -> Iterator[None]:
    if servers.postgres is None:
        pytest.skip("the settings of an external server are not changed by tests")
    set_read_only(database, "on")
    try:
        yield
    finally:
        set_read_only(database, "off")


def put_pause(database: Database) -> None:
    with database.transaction() as session:
        session.execute(text("INSERT INTO paused_queues (name) VALUES (gen_random_uuid()::text)"))


def test_read_only_database_is_unavailable_until_it_is_writable(servers: EmbeddedServers, database: Database):
    with read_only(servers, database), pytest.raises(DatabaseUnavailable, match="read-only"):
        put_pause(database)
    put_pause(database)


def test_connections_to_a_former_primary_are_replaced(servers: EmbeddedServers, database: Database):
    def backend_pid() -> int:
        with database.transaction() as session:
            return session.execute(text("SELECT pg_backend_pid()")).scalar_one()

    before = backend_pid()
    assert backend_pid() == before
    with read_only(servers, database), pytest.raises(DatabaseUnavailable):
        put_pause(database)
    assert backend_pid() != before


def test_other_database_errors_do_not_count_as_unavailable(database: Database):
    def continue_after_a_failed_statement() -> None:
        with database.transaction() as session:
            with suppress(DataError):
                session.execute(text("SELECT 1 / 0"))
            session.execute(text("SELECT 1"))

    with pytest.raises(InternalError):
        continue_after_a_failed_statement()


def test_submission_during_a_failover_returns_503(servers: EmbeddedServers, database: Database, api: TestClient):
    with read_only(servers, database):
        response = api.post("/v1/models", json={"repo_id": "a/b"})
        assert api.get("/v1/models").status_code == 200
    assert (response.status_code, documented_problem(response)["code"]) == (503, "database_unavailable")
    assert api.post("/v1/models", json={"repo_id": "a/b"}).status_code == 202


@pytest.mark.parametrize(
    ("table", "message"), [("vectors", "Unexpected error in index-follower"), ("maps", "loading the default map")]
)
def test_background_threads_survive_any_error(
    database: Database, caplog: pytest.LogCaptureFixture, table: str, message: str
):
    entries.put(database, "a/one", [1, 0])
    entries.put(database, "a/two", [1, 1])
    conf = settings().model_copy(update={"feed_interval": 0.01})
    with TestClient(create_app(conf), "http://localhost", headers=AS_ADMIN) as api:
        wait_for_neighbors(api, "a/one", ["a/two"])
        with missing_table(database, table):
            wait_until(lambda: message in caplog.text, "the thread has failed once")
        entries.put(database, "a/three", [1, 0.1])
        wait_for_neighbors(api, "a/one", ["a/three", "a/two"])
        assert {"maps", "index-follower"} <= {thread.name for thread in threading.enumerate()}


def wait_for_neighbors(api: TestClient, repo_id: str, expected: list[str]) -> None:
    def has_neighbors() -> bool:
        response = api.get(f"/v1/models/{repo_id}/neighbors")
        if response.status_code != 200:
            return False
        return [neighbor["repo_id"] for neighbor in response.json()["neighbors"]] == expected

    wait_until(has_neighbors, f"{repo_id} has its neighbors")
