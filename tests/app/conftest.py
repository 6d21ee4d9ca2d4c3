"""The API over the tests' database: in this process, and on a port of its own."""

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
from tests.support.waiting import wait_until


@pytest.fixture(scope="session")
def application(servers: EmbeddedServers) -> FastAPI:
    """Made once, for that takes longer than most tests; what it holds of a database is its lifespan's."""
    return create_app(settings().model_copy(update={"feed_interval": 3600}))


@pytest.fixture
def api(application: FastAPI, database: Database) -> Iterator[TestClient]:
    """The app with its lifespan. It reads the change feed once, and then when a test calls `refresh`."""
    conf = application.state.settings
    with TestClient(application) as client:
        wait_until(lambda: client.app.state.services.index.loaded, "the change feed is read")
        yield client
    application.state.settings = conf  # tests put others in their place
    application.dependency_overrides.clear()
