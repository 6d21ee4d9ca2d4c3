"""Routes use the settings that their app was created with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from catalog.database import Database
from catalog.settings import settings
from tests.support import catalog as entries
from tests.support.keys import AS_ADMIN


@pytest.fixture
def zero_timeout_api(database: Database) -> Iterator[TestClient]:
    """An admin's client of an app whose heartbeat timeout is 0, so that every worker counts as dead."""
    conf = settings().model_copy(update={"heartbeat_timeout": 0.0})
    with TestClient(create_app(conf), "http://localhost", headers=AS_ADMIN) as client:
        yield client


def test_stats_use_the_heartbeat_timeout_of_the_app(zero_timeout_api: TestClient, api: TestClient, database: Database):
    worker_id = entries.put_worker(database)
    assert [worker["id"] for worker in api.get("/v1/stats").json()["workers"]] == [worker_id]
    assert zero_timeout_api.get("/v1/stats").json()["workers"] == []


def test_worker_list_uses_the_heartbeat_timeout_of_the_app(zero_timeout_api: TestClient, database: Database):
    entries.put_worker(database)
    assert zero_timeout_api.get("/v1/admin/workers").json()["workers"] == []


def test_crawl_estimate_uses_the_heartbeat_timeout_of_the_app(zero_timeout_api: TestClient, database: Database):
    entries.put_worker(database)
    entries.put_worker(database)
    crawl = zero_timeout_api.post("/v1/admin/crawls", json={"base": "org/base"}).json()
    assert zero_timeout_api.get(f"/v1/admin/crawls/{crawl['id']}").json()["estimate"]["workers"] == 1
