"""Helpers for tests of the API: an API on a port, and an explicit refresh of the index."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from catalog.database import Database
from catalog.settings import settings
from tests.support.serving import serving


def refresh(api: TestClient) -> None:
    """Apply all changes in the change feed to the index."""
    api.app.state.services.index.sync()


@pytest.fixture
def url(database: Database) -> Iterator[str]:
    """The address of an API that listens and follows the change feed."""
    conf = settings().model_copy(update={"feed_interval": 0.01})
    with serving(create_app(conf)) as address:
        yield address
