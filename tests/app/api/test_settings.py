"""The routes use the settings that their app was made with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.main import create_app
from catalog.database import Database
from catalog.settings import settings
from tests.support import catalog as entries

ADMIN_KEY = "open sesame for admins"


@pytest.fixture
def impatient(database: Database) -> Iterator[TestClient]:
    """An app to which no heartbeat is fresh enough, and an admin's client of it."""
    conf = settings().model_copy(update={"heartbeat_limit": 0.0, "admin_api_key": SecretStr(ADMIN_KEY)})
    with TestClient(create_app(conf), headers={"X-Admin-Key": ADMIN_KEY}) as client:
        yield client


def test_stats_use_the_heartbeat_limit_of_the_app(impatient: TestClient, api: TestClient, database: Database):
    worker_id = entries.put_worker(database)
    assert [worker["id"] for worker in api.get("/v1/stats").json()["workers"]] == [worker_id]
    assert impatient.get("/v1/stats").json()["workers"] == []


def test_the_list_of_workers_uses_the_heartbeat_limit_of_the_app(impatient: TestClient, database: Database):
    entries.put_worker(database)
    assert impatient.get("/v1/admin/workers").json()["workers"] == []


def test_a_crawls_estimate_uses_the_heartbeat_limit_of_the_app(impatient: TestClient, database: Database):
    entries.put_worker(database)
    entries.put_worker(database)
    crawl = impatient.post("/v1/admin/crawls", json={"base": "org/base"}).json()
    assert impatient.get(f"/v1/admin/crawls/{crawl['id']}").json()["estimate"]["workers"] == 1
