from __future__ import annotations

import gzip
import json
from pathlib import Path
from threading import Event, Thread

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event

from app.api.maps.schemas import Map
from app.api.services.map_body import decompress
from catalog.database import Database
from catalog.maps.runner import MapRunner
from tests.support import catalog as entries
from tests.support.api import refresh
from tests.support.browser import Page
from tests.support.catalog import SPACE
from tests.support.clusters import cluster, fill, vector
from tests.support.map_page import open_map
from tests.support.problem_documents import documented_problem
from tests.support.waiting import wait_until


@pytest.fixture
def mapped(database: Database, tmp_path: Path) -> Database:
    """A map of three clusters of six models."""
    fill(database, models_per_topic=6)
    cluster(database, tmp_path)
    MapRunner(database, tmp_path).run(1)
    return database


def names(response: dict) -> list[str]:
    return [f"{owner}/{name}" for owner, repos in response["points"]["owners"] for name in repos]


def test_map_of_a_space_is_returned(mapped: Database, api: TestClient):
    response = api.get("/v1/map", params={"space": SPACE.key}).json()
    assert response == api.get("/v1/map").json()
    assert Map.model_validate(response).model_dump(mode="json") == response
    assert len(names(response)) == 18
    assert {cluster["name"] for cluster in response["clusters"]} == {"law", "math", "code"}
    columns = [response["points"][column] for column in ("x", "y", "cluster", "distortion")]
    assert [len(column) for column in columns] == [18] * 4
    assert min(response["points"]["x"] + response["points"]["y"]) >= 0
    assert max(response["points"]["x"] + response["points"]["y"]) == response["side"]


def test_body_is_gzipped_only_if_the_client_accepts_it(mapped: Database, api: TestClient):
    gzipped = api.get("/v1/map", headers={"Accept-Encoding": "gzip"})
    identity = api.get("/v1/map", headers={"Accept-Encoding": "identity"})
    assert gzipped.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in identity.headers
    assert gzipped.json() == identity.json()


def test_new_model_is_in_the_next_response(mapped: Database, api: TestClient):
    first = api.get("/v1/map")
    entries.put(mapped, "owner/new", vector(1, 99))
    refresh(api)
    second = api.get("/v1/map")
    assert first.headers["ETag"] != second.headers["ETag"]
    assert second.json()["arrivals"]["repo_ids"] == ["owner/new"]
    assert second.json()["points"] == first.json()["points"]


def test_unchanged_map_returns_304(mapped: Database, api: TestClient):
    etag = api.get("/v1/map").headers["ETag"]
    response = api.get("/v1/map", headers={"If-None-Match": etag})
    assert (response.status_code, response.content) == (304, b"")
    entries.put(mapped, "owner/new", vector(1, 99))
    refresh(api)
    assert api.get("/v1/map", headers={"If-None-Match": etag}).status_code == 200


def test_missing_map_returns_its_error_code(database: Database, api: TestClient):
    assert documented_problem(api.get("/v1/map"))["code"] == "space_not_found"
    fill(database, models_per_topic=1)
    assert documented_problem(api.get("/v1/map"))["code"] == "map_not_ready"


def test_body_contains_the_arrivals(mapped: Database, api: TestClient):
    map_cache, bodies = api.app.state.services.map_cache, api.app.state.services.map_bodies
    first = bodies.make(map_cache.current_version()).compressed
    entries.put(mapped, "owner/new", vector(1, 99))
    refresh(api)
    second = bodies.make(map_cache.current_version()).compressed
    assert json.loads(gzip.decompress(first))["arrivals"]["repo_ids"] == []
    assert json.loads(gzip.decompress(second))["arrivals"]["repo_ids"] == ["owner/new"]
    assert decompress(second) == gzip.decompress(second)


def test_page_shows_the_map_of_the_api(mapped: Database, url: str):
    with Page() as page:
        open_map(page, url, "/")
        page.wait_for("document.body.dataset.state === 'ready'")
        assert page.text("#status") == "18 models, 3 clusters"
        entries.put(mapped, "owner/new", vector(1, 99))
        open_map(page, url, "/map#owner%2Fnew")
        page.wait_for("document.querySelectorAll('#neighbors li').length === 10")
        assert page.text("#model-name") == "owner/new"


def test_default_map_is_loaded_before_the_first_request(mapped: Database, api: TestClient):
    services, stopping = api.app.state.services, Event()
    thread = Thread(target=services.refresh_default_map, args=(stopping, 0.01))
    thread.start()
    wait_until(lambda: SPACE.key in services.map_bodies, "the default map is loaded")
    stopping.set()
    thread.join()
    statements: list[str] = []
    record = lambda *arguments: statements.append(arguments[2])  # noqa: E731
    event.listen(services.database.engine, "before_cursor_execute", record)
    assert api.get("/v1/map").status_code == 200
    assert len(statements) == 1
