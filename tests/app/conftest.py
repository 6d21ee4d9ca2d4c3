"""Fixtures: the API on the test database, in the test process and on a port."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.deployment.embedded import EmbeddedServers
from app.main import create_app
from catalog.database import Database
from catalog.settings import settings
from tests.support.api import url  # noqa: F401  (a fixture)
from tests.support.keys import AS_ADMIN
from tests.support.waiting import wait_until


@pytest.fixture(scope="session")
def application(servers: EmbeddedServers) -> FastAPI:
    """The app. It is created once, because that takes longer than most tests; each lifespan opens its own database."""
    return create_app(settings().model_copy(update={"feed_interval": 3600}))


@pytest.fixture
def api(application: FastAPI, database: Database) -> Iterator[TestClient]:
    """An admin's client of the app. The app reads the change feed when it starts, and when a test calls `refresh`."""
    conf = application.state.settings
    with TestClient(application, "http://localhost", headers=AS_ADMIN) as client:
        wait_until(lambda: client.app.state.services.index.loaded, "the change feed is read")
        yield client
    application.state.settings = conf  # tests may replace them
    application.dependency_overrides.clear()
