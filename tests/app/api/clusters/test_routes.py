from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.main import create_app
from catalog.database import Database
from catalog.settings import settings
from tests.support.api import refresh
from tests.support.catalog import SPACE, put_model
from tests.support.clusters import cluster, fill
from tests.support.problem_documents import documented_problem


@pytest.fixture
def clustered(database: Database, tmp_path: Path) -> Database:
    """Three clusters of four models."""
    fill(database)
    cluster(database, tmp_path)
    return database


@pytest.fixture
def here(database: Database) -> Iterator[TestClient]:
    """The API as one asks it from this machine."""
    conf = settings().model_copy(update={"feed_interval": 3600})
    with TestClient(create_app(conf), client=("127.0.0.1", 1)) as client:
        yield client


@pytest.fixture
def locked(database: Database) -> Iterator[TestClient]:
    """The API with an admin key, asked from elsewhere."""
    conf = settings().model_copy(update={"feed_interval": 3600, "admin_api_key": SecretStr("s3cret of the admins")})
    with TestClient(create_app(conf), client=("192.0.2.1", 1)) as client:
        yield client


def law(api: TestClient) -> dict:
    return next(each for each in api.get("/v1/clusters").json()["clusters"] if each["name"] == "law")


def test_the_clusters_of_a_space(clustered: Database, api: TestClient):
    found = api.get("/v1/clusters", params={"space": SPACE.key}).json()
    assert found == api.get("/v1/clusters").json()
    assert found["space"]["key"] == found["run"]["space"] == SPACE.key
    assert (found["run"]["clusters"], found["run"]["state"]) == (3, "done")
    own = law(api)
    assert (own["size"], own["explanation"]["words"][0]["term"]) == (4, "law")
    assert own["medoid"].startswith("owner/tiny-law-")


def test_a_cluster_with_its_closest_members(clustered: Database, api: TestClient):
    number = law(api)["id"]
    found = api.get(f"/v1/clusters/{number}").json()
    assert found["current"]
    assert found["closest"][0]["repo_id"] == found["medoid"]
    similarities = [each["similarity"] for each in found["closest"]]
    assert similarities == sorted(similarities, reverse=True)
    assert api.get(f"/v1/clusters/{number}", params={"run": found["run"]}).json() == found


def test_members_come_in_pages(clustered: Database, api: TestClient):
    path = f"/v1/clusters/{law(api)['id']}/members"
    whole = api.get(path).json()
    assert len(whole["members"]) == 4
    assert whole["next_cursor"] is None
    first = api.get(path, params={"limit": 3}).json()
    second = api.get(path, params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert first["members"] + second["members"] == whole["members"]


def test_where_a_model_is(clustered: Database, api: TestClient):
    own = law(api)
    found = api.get("/v1/models/owner/tiny-law-2/cluster").json()
    assert (found["cluster"], found["name"], found["placed"]) == (own["id"], "law", False)
    assert found["similarity"] > 0.9


def test_a_search_is_limited_to_a_cluster(clustered: Database, api: TestClient):
    refresh(api)
    answer = api.get("/v1/models/owner/tiny-math-0/neighbors", params={"cluster": law(api)["id"], "unconfident": True})
    names = [each["repo_id"] for each in answer.json()["neighbors"]]
    assert len(names) == 4
    assert all("-law-" in name for name in names)


def test_runs_are_listed_and_compared(clustered: Database, api: TestClient, tmp_path: Path):
    cluster(clustered, tmp_path)
    found = api.get("/v1/clusters/runs", params={"space": SPACE.key}).json()["runs"]
    assert [run["current"] for run in found] == [True, False]
    newest, oldest = (run["id"] for run in found)
    assert found[0]["compared_with"] == oldest
    compared = api.get(f"/v1/clusters/runs/{newest}/compare/{oldest}").json()
    assert (compared["models"], compared["adjusted_rand"], len(compared["kept"])) == (12, 1, 3)
    page = api.get("/v1/clusters/runs", params={"limit": 1}).json()
    rest = api.get("/v1/clusters/runs", params={"limit": 1, "cursor": page["next_cursor"]}).json()
    assert [run["id"] for run in page["runs"] + rest["runs"]] == [newest, oldest]


def test_an_admin_of_this_machine_asks_for_a_run_and_sees_it_wait(clustered: Database, here: TestClient):
    answer = here.post("/v1/admin/clusters", json={"algorithm": "kmeans", "clusters": 2})
    assert answer.status_code == 202
    run = answer.json()
    assert (run["state"], run["algorithm"], run["parameters"]["clusters"]) == ("queued", "kmeans", 2)
    assert here.get(f"/v1/clusters/runs/{run['id']}").json() == run
    assert here.post("/v1/admin/clusters", json={}).json()["id"] == run["id"]


def test_without_a_key_nobody_else_is_an_admin(clustered: Database, api: TestClient):
    assert documented_problem(api.post("/v1/admin/clusters", json={}))["code"] == "admin_only"


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
def test_a_proxy_of_this_machine_is_not_its_user(clustered: Database, here: TestClient, header: str):
    answer = here.post("/v1/admin/clusters", json={}, headers={header: "192.0.2.1"})
    assert documented_problem(answer)["code"] == "admin_only"


@pytest.mark.parametrize("headers", [{}, {"X-Admin-Key": "wrong"}, {"X-Admin-Key": ""}])
def test_a_key_that_is_missing_or_wrong_is_refused(clustered: Database, locked: TestClient, headers: dict[str, str]):
    answer = locked.post("/v1/admin/clusters", json={}, headers=headers)
    assert (answer.status_code, documented_problem(answer)["code"]) == (401, "admin_key_required")


def test_the_right_key_is_an_admins(clustered: Database, locked: TestClient):
    answer = locked.post("/v1/admin/clusters", json={}, headers={"X-Admin-Key": "s3cret of the admins"})
    assert answer.status_code == 202


@pytest.mark.parametrize(
    "body", [{"algorithm": "kmeans"}, {"clusters": 3}, {"algorithm": "dbscan"}, {"min_cluster_size": 1}, {"x": 1}]
)
def test_a_request_that_cannot_be_followed_is_refused(clustered: Database, here: TestClient, body: dict):
    assert documented_problem(here.post("/v1/admin/clusters", json=body))["code"] == "invalid_input"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/clusters", "not_clustered"),
        (f"/v1/clusters?space={'0' * 64}", "space_not_found"),
        ("/v1/clusters/7", "cluster_not_found"),
        ("/v1/clusters/7/members", "cluster_not_found"),
        ("/v1/clusters/runs?cursor=?", "invalid_cursor"),
        ("/v1/clusters/runs/7", "run_not_found"),
        ("/v1/clusters/runs/7/compare/8", "run_not_found"),
        ("/v1/models/no/such/cluster", "model_not_found"),
        ("/v1/models/owner/model/cluster", "not_clustered"),
    ],
)
def test_what_is_not_there_is_told(database: Database, api: TestClient, path: str, code: str):
    put_model(database)
    assert documented_problem(api.get(path))["code"] == code


def test_a_cursor_that_is_not_ours_is_refused(clustered: Database, api: TestClient):
    answer = api.get(f"/v1/clusters/{law(api)['id']}/members", params={"cursor": "abc"})
    assert documented_problem(answer)["code"] == "invalid_cursor"
