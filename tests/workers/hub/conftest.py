from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.hub_client import make_hub
from tests.support.hub_server import HubServer, ScriptedHub
from workers.hub.client import Hub


@pytest.fixture
def hub(hub_server: HubServer, tmp_path: Path) -> Hub:
    return make_hub(hub_server.url, tmp_path)


@pytest.fixture
def scripted(scripted_hub: ScriptedHub, tmp_path: Path) -> Hub:
    return make_hub(scripted_hub.url, tmp_path)


@pytest.fixture
def impatient(scripted_hub: ScriptedHub, tmp_path: Path) -> Hub:
    """A hub with a short timeout, for requests that are never answered."""
    return make_hub(scripted_hub.url, tmp_path, timeout=3.0)
