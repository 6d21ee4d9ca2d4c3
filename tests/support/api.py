"""An API that listens, and one whose index is refreshed by the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from catalog.database import Database
from catalog.settings import settings
from tests.support.serving import serving


def refresh(api: TestClient) -> None:
    api.app.state.services.index.catch_up()


@pytest.fixture
def url(database: Database) -> Iterator[str]:
    """Address of an API that listens, and follows the change feed."""
    conf = settings().model_copy(update={"feed_interval": 0.01})
    with serving(create_app(conf)) as address:
        yield address
