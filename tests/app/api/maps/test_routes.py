from __future__ import annotations

import gzip
import json
from pathlib import Path
from threading import Event, Thread

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event

from app.api.maps.schemas import Map
from app.api.services.map_body import MapBodies, plain
from catalog.database import Database
from catalog.maps.runner import Drawer
from tests.support import catalog as entries
from tests.support.api import refresh
from tests.support.browser import Page
from tests.support.catalog import SPACE
from tests.support.clusters import cluster, fill, vector
from tests.support.map_page import open_map
from tests.support.problem_documents import documented_problem
from tests.support.waiting import wait_until


@pytest.fixture
def drawn(database: Database, tmp_path: Path) -> Database:
    """A map of three clusters of six models."""
    fill(database, each=6)
    cluster(database, tmp_path)
    Drawer(database, tmp_path).run(1)
    return database


def names(answer: dict) -> list[str]:
    return [f"{owner}/{name}" for owner, those in answer["points"]["owners"] for name in those]


def test_the_map_of_a_space(drawn: Database, api: TestClient):
    answer = api.get("/v1/map", params={"space": SPACE.key}).json()
    assert answer == api.get("/v1/map").json()
    assert Map.model_validate(answer).model_dump(mode="json") == answer
    assert len(names(answer)) == 18
    assert {each["name"] for each in answer["clusters"]} == {"law", "math", "code"}
    columns = [answer["points"][column] for column in ("x", "y", "cluster", "distortion")]
    assert [len(column) for column in columns] == [18] * 4
    assert min(answer["points"]["x"] + answer["points"]["y"]) >= 0
    assert max(answer["points"]["x"] + answer["points"]["y"]) == answer["side"]


def test_who_takes_gzip_gets_it_and_others_the_same_plain(drawn: Database, api: TestClient):
    packed = api.get("/v1/map", headers={"Accept-Encoding": "gzip"})
    open_ = api.get("/v1/map", headers={"Accept-Encoding": "identity"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in open_.headers
    assert packed.json() == open_.json()


def test_a_model_that_comes_is_on_the_next_answer(drawn: Database, api: TestClient):
    first = api.get("/v1/map")
    entries.put(drawn, "owner/new", vector(1, 99))
    refresh(api)
    second = api.get("/v1/map")
    assert first.headers["ETag"] != second.headers["ETag"]
    assert second.json()["placed"]["repo_ids"] == ["owner/new"]
    assert second.json()["points"] == first.json()["points"]


def test_what_has_not_changed_is_not_sent_again(drawn: Database, api: TestClient):
    tag = api.get("/v1/map").headers["ETag"]
    again = api.get("/v1/map", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    entries.put(drawn, "owner/new", vector(1, 99))
    refresh(api)
    assert api.get("/v1/map", headers={"If-None-Match": tag}).status_code == 200


def test_without_a_map_the_answer_says_so(database: Database, api: TestClient):
    assert documented_problem(api.get("/v1/map"))["code"] == "space_not_found"
    fill(database, each=1)
    assert documented_problem(api.get("/v1/map"))["code"] == "not_mapped"


def test_a_body_holds_what_came_since_the_drawing(drawn: Database, api: TestClient):
    atlas, bodies = api.app.state.services.atlas, MapBodies()
    first = bodies.gzipped(atlas.view(atlas.standing()))
    entries.put(drawn, "owner/new", vector(1, 99))
    refresh(api)
    second = bodies.gzipped(atlas.view(atlas.standing()))
    assert json.loads(gzip.decompress(first))["placed"]["repo_ids"] == []
    assert json.loads(gzip.decompress(second))["placed"]["repo_ids"] == ["owner/new"]
    assert plain(second) == gzip.decompress(second)


def test_the_page_shows_what_the_api_tells(drawn: Database, url: str):
    with Page() as page:
        open_map(page, url, "/")
        page.wait_for("document.body.dataset.state === 'ready'")
        assert page.text("#status") == "18 models, 3 clusters"
        entries.put(drawn, "owner/new", vector(1, 99))
        open_map(page, url, "/map#owner%2Fnew")
        page.wait_for("document.querySelectorAll('#neighbours li').length === 10")
        assert page.text("#model-name") == "owner/new"


def test_the_map_is_made_ready_before_anybody_asks(drawn: Database, api: TestClient):
    services, stopping = api.app.state.services, Event()
    thread = Thread(target=services.keep_maps_ready, args=(stopping, 0.01))
    thread.start()
    wait_until(lambda: SPACE.key in services.map_bodies, "the map is made ready")
    stopping.set()
    thread.join()
    statements: list[str] = []
    with_listener = lambda *arguments: statements.append(arguments[2])  # noqa: E731
    event.listen(services.database.engine, "before_cursor_execute", with_listener)
    assert api.get("/v1/map").status_code == 200
    assert len(statements) == 1
