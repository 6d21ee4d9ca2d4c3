"""A Postgres that answers and takes no changes, as one does that was the primary until a moment ago."""

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
from tests.support.outage import without_its_table
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
    while True:  # the server's processes read it one after another
        with psycopg.connect(address) as connection:
            row = connection.execute("SHOW default_transaction_read_only").fetchone()
        if row == (value,):
            return
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def read_only(servers: EmbeddedServers, database: Database) -> Iterator[None]:
    if servers.postgres is None:
        pytest.skip("the address of that server was given: its settings are not ours to change")
    set_read_only(database, "on")
    try:
        yield
    finally:
        set_read_only(database, "off")


def put_pause(database: Database) -> None:
    with database.transaction() as session:
        session.execute(text("INSERT INTO paused_queues (name) VALUES (gen_random_uuid()::text)"))


def test_a_database_that_takes_no_changes_is_unavailable_until_it_does(servers: EmbeddedServers, database: Database):
    with read_only(servers, database), pytest.raises(DatabaseUnavailable, match="takes no changes"):
        put_pause(database)
    put_pause(database)


def test_connections_to_a_former_primary_are_made_anew(servers: EmbeddedServers, database: Database):
    def process() -> int:
        with database.transaction() as session:
            return session.execute(text("SELECT pg_backend_pid()")).scalar_one()

    before = process()
    assert process() == before
    with read_only(servers, database), pytest.raises(DatabaseUnavailable):
        put_pause(database)
    assert process() != before


def test_another_internal_error_is_none_of_the_database_being_away(database: Database):
    def go_on_in_a_transaction_that_failed() -> None:
        with database.transaction() as session:
            with suppress(DataError):
                session.execute(text("SELECT 1 / 0"))
            session.execute(text("SELECT 1"))

    with pytest.raises(InternalError):
        go_on_in_a_transaction_that_failed()


def test_a_submission_meanwhile_is_to_be_tried_again(servers: EmbeddedServers, database: Database, api: TestClient):
    with read_only(servers, database):
        refused = api.post("/v1/models", json={"repo_id": "a/b"})
        assert api.get("/v1/models").status_code == 200
    assert (refused.status_code, documented_problem(refused)["code"]) == (503, "database_unavailable")
    assert api.post("/v1/models", json={"repo_id": "a/b"}).status_code == 202


@pytest.mark.parametrize(("table", "told"), [("vectors", "change feed"), ("maps", "map could not be made ready")])
def test_a_process_goes_on_after_any_error_of_its_threads(
    database: Database, caplog: pytest.LogCaptureFixture, table: str, told: str
):
    entries.put(database, "a/one", [1, 0])
    entries.put(database, "a/two", [1, 1])
    with TestClient(create_app(settings().model_copy(update={"feed_interval": 0.01}))) as api:
        find(api, "a/one", ["a/two"])
        with without_its_table(database, table):
            wait_until(lambda: told in caplog.text, "a look has failed")
        entries.put(database, "a/three", [1, 0.1])
        find(api, "a/one", ["a/three", "a/two"])
        assert {"maps", "index-follower"} <= {thread.name for thread in threading.enumerate()}


def find(api: TestClient, repo_id: str, expected: list[str]) -> None:
    def found() -> bool:
        response = api.get(f"/v1/models/{repo_id}/neighbors")
        return response.status_code == 200 and [each["repo_id"] for each in response.json()["neighbors"]] == expected

    wait_until(found, f"{repo_id} has its neighbors")
