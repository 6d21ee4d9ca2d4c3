"""The client of the command line waits for what takes minutes, and for nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from app import client as client_module
from app.client import Client
from catalog.errors import NotRunning
from tests.support.serving import serving

SLOW = 0.5  # seconds


@pytest.fixture
def slow_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that answers later than the client waits for most answers."""
    monkeypatch.setattr(client_module, "TIMEOUT", SLOW / 5)
    app = FastAPI()

    async def answer() -> dict[str, bool]:
        await asyncio.sleep(SLOW)
        return {"done": True}

    app.post("/switch")(answer)
    app.delete("/switch")(answer)
    with serving(app) as url:
        yield url


def test_patient_request_waits_for_a_late_answer(slow_url: str):
    with Client(slow_url) as client:
        assert client.post("/switch", {}, patient=True) == {"done": True}
        assert client.delete("/switch", patient=True) == {"done": True}


def test_ordinary_request_does_not_wait(slow_url: str):
    with Client(slow_url) as client, pytest.raises(NotRunning):
        client.post("/switch", {})
