from __future__ import annotations

import re

from fastapi.testclient import TestClient

from catalog.database import Database
from tests.support import catalog as entries
from tests.support.keys import AS_ADMIN


def metrics(api: TestClient) -> dict[str, float]:
    """All samples; asserts that they are in the Prometheus text format."""
    response = api.get("/metrics", headers=AS_ADMIN)
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = response.text.splitlines()
    assert all(re.fullmatch(r'# (HELP|TYPE) \w+ .+|\w+(\{\w+="\w+"\})? [\d.]+(e\+\d+)?', line) for line in lines)
    return {name: float(value) for name, value in (line.split(" ") for line in lines if line[0] != "#")}


def test_no_space_is_reported_before_the_first_search(api: TestClient):
    assert metrics(api) == {"deltadex_index_loaded": 1, "deltadex_index_damaged_segments_total": 0}


def test_loaded_space_is_reported(api: TestClient, database: Database):
    entries.put(database, "a/one", [1, 0])
    entries.put(database, "a/two", [0, 1])
    api.get("/v1/models/a/one/neighbors")
    samples = metrics(api)
    assert samples['deltadex_index_vectors{space_id="1"}'] == 2
    assert samples['deltadex_index_generation{space_id="1"}'] == 0
    assert samples['deltadex_index_memory_bytes{space_id="1"}'] == 16
    assert samples['deltadex_index_degraded{space_id="1"}'] == 0
