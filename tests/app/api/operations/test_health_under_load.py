"""Health checks are answered while all threads and connections of the process are in use."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import text

from app.main import create_app
from catalog.database import Database
from catalog.settings import settings
from tests.support import catalog as entries
from tests.support.keys import AS_ADMIN, add_key
from tests.support.problem_documents import documented_problem
from tests.support.serving import serving

BLOCKED = 60  # requests; more than the process has threads or connections
KEY = "the key of another admin"


@pytest.fixture
def url(database: Database) -> Iterator[str]:
    """The address of an API whose statements wait for locks as long as they need."""
    conf = settings().model_copy(update={"feed_interval": 3600, "lock_timeout": 0, "statement_timeout": 0})
    with serving(create_app(conf)) as address:
        yield address


def test_health_checks_answer_while_every_thread_waits_for_postgres(url: str, database: Database):
    add_key(database, KEY)

    async def run() -> tuple[list[int], list[httpx.Response]]:
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=100)) as client:
            with database.transaction() as holder:
                holder.execute(text("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"))
                blocked = [asyncio.create_task(client.get("/v1/jobs")) for _ in range(BLOCKED)]
                while not await asyncio.to_thread(_waiting, database):
                    await asyncio.sleep(0.01)
                checks = [
                    (await client.get(path, headers=headers)).status_code
                    for path in ("/healthz", "/readyz")
                    for headers in ({}, AS_ADMIN, {"X-API-Key": KEY})
                ]
                assert not all(task.done() for task in blocked)
            return checks, await asyncio.gather(*blocked)

    checks, responses = asyncio.run(run())

    assert checks[:3] == [200] * 3
    assert set(checks[3:]) <= {200, 503}  # the lock may hold up the background check as well
    for response in responses:
        assert response.status_code == 200 or documented_problem(response)["code"] == "database_busy"


def _waiting(database: Database) -> bool:
    """Whether as many statements wait for the table as the process has connections."""
    with database.autocommit() as connection:
        count = connection.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one()
    return count >= 30


def test_submission_that_waits_for_a_lock_gets_503_database_busy(database: Database):
    entries.put_model(database, "a/b")
    conf = settings().model_copy(update={"feed_interval": 3600, "lock_timeout": 0.1})
    with serving(create_app(conf)) as url, database.transaction() as holder:
        holder.execute(text("SELECT 1 FROM models FOR UPDATE"))
        response = httpx.post(f"{url}/v1/models", json={"repo_id": "a/b"}, headers=AS_ADMIN, timeout=60)
    assert (response.status_code, documented_problem(response)["code"]) == (503, "database_busy")
    assert int(response.headers["Retry-After"]) >= 1
