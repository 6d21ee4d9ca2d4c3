"""The API over the tests' database: in this process, and on a port of its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from fastapi.testclient import TestClient

from app.main import create_app
from catalog.database import Database
from catalog.settings import settings


@pytest.fixture
def api(database: Database) -> Iterator[TestClient]:
    """The app with its lifespan. It reads the change feed once, and then when a test calls `refresh`."""
    with TestClient(create_app(settings().model_copy(update={"feed_interval": 3600}))) as client:
        deadline = time.monotonic() + 10
        while not client.app.state.services.index.loaded:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        yield client


def refresh(api: TestClient) -> None:
    api.app.state.services.index.catch_up()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def url(database: Database) -> Iterator[str]:
    """Address of an API that listens, and follows the change feed."""
    conf = settings().model_copy(update={"feed_interval": 0.01})
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(conf), port=port, ws="none", log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)
