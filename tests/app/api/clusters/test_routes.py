from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from catalog.database import Database
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


def law_cluster(api: TestClient) -> dict:
    return next(row for row in api.get("/v1/clusters").json()["clusters"] if row["name"] == "law")


def test_clusters_of_a_space_are_listed(clustered: Database, api: TestClient):
    response = api.get("/v1/clusters", params={"space": SPACE.key}).json()
    assert response == api.get("/v1/clusters").json()
    assert response["space"]["key"] == response["run"]["space"] == SPACE.key
    assert (response["run"]["clusters"], response["run"]["state"]) == (3, "done")
    law = law_cluster(api)
    assert (law["size"], law["explanation"]["words"][0]["term"]) == (4, "law")
    assert law["medoid"].startswith("owner/tiny-law-")


def test_clusters_are_paginated(clustered: Database, api: TestClient):
    full = api.get("/v1/clusters").json()
    assert full["next_cursor"] is None
    rows, cursor = [], None
    for _ in range(3):
        page = api.get("/v1/clusters", params={"limit": 1} | ({"cursor": cursor} if cursor else {})).json()
        rows, cursor = rows + page["clusters"], page["next_cursor"]
    assert rows == full["clusters"]
    assert api.get("/v1/clusters", params={"limit": 1, "cursor": cursor}).json()["clusters"] == []


def test_cluster_is_returned_with_its_closest_members(clustered: Database, api: TestClient):
    cluster_id = law_cluster(api)["id"]
    detail = api.get(f"/v1/clusters/{cluster_id}").json()
    assert detail["current"]
    assert detail["closest"][0]["repo_id"] == detail["medoid"]
    similarities = [member["similarity"] for member in detail["closest"]]
    assert similarities == sorted(similarities, reverse=True)
    assert api.get(f"/v1/clusters/{cluster_id}", params={"run": detail["run"]}).json() == detail


def test_members_are_paginated(clustered: Database, api: TestClient):
    path = f"/v1/clusters/{law_cluster(api)['id']}/members"
    full = api.get(path).json()
    assert len(full["members"]) == 4
    assert full["next_cursor"] is None
    first = api.get(path, params={"limit": 3}).json()
    second = api.get(path, params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert first["members"] + second["members"] == full["members"]


def test_cluster_of_a_model_is_returned(clustered: Database, api: TestClient):
    assignment = api.get("/v1/models/owner/tiny-law-2/cluster").json()
    assert (assignment["cluster"], assignment["name"]) == (law_cluster(api)["id"], "law")
    assert not assignment["assigned_after_run"]
    assert assignment["similarity"] > 0.9


def test_search_can_be_limited_to_a_cluster(clustered: Database, api: TestClient):
    refresh(api)
    response = api.get(
        "/v1/models/owner/tiny-math-0/neighbors",
        params={"cluster": law_cluster(api)["id"], "include_low_confidence": True},
    )
    names = [neighbor["repo_id"] for neighbor in response.json()["neighbors"]]
    assert len(names) == 4
    assert all("-law-" in name for name in names)


def test_runs_are_listed_and_compared(clustered: Database, api: TestClient, tmp_path: Path):
    cluster(clustered, tmp_path)
    runs = api.get("/v1/clusters/runs", params={"space": SPACE.key}).json()["runs"]
    assert [run["current"] for run in runs] == [True, False]
    newest, oldest = (run["id"] for run in runs)
    assert runs[0]["compared_with"] == oldest
    comparison = api.get(f"/v1/clusters/runs/{newest}/compare/{oldest}").json()
    assert (comparison["models"], comparison["adjusted_rand"], len(comparison["shared_clusters"])) == (12, 1, 3)
    first = api.get("/v1/clusters/runs", params={"limit": 1}).json()
    second = api.get("/v1/clusters/runs", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert [run["id"] for run in first["runs"] + second["runs"]] == [newest, oldest]


def test_request_from_this_machine_enqueues_a_run(clustered: Database, api: TestClient):
    response = api.post("/v1/admin/clusters/runs", json={"algorithm": "kmeans", "clusters": 2})
    assert response.status_code == 202
    run = response.json()
    assert (run["state"], run["algorithm"], run["parameters"]["clusters"]) == ("queued", "kmeans", 2)
    assert api.get(f"/v1/clusters/runs/{run['id']}").json() == run
    assert api.post("/v1/admin/clusters/runs", json={}).json()["id"] == run["id"]


@pytest.mark.parametrize(
    "body", [{"algorithm": "kmeans"}, {"clusters": 3}, {"algorithm": "dbscan"}, {"min_cluster_size": 1}, {"x": 1}]
)
def test_invalid_parameters_are_rejected(clustered: Database, api: TestClient, body: dict):
    assert documented_problem(api.post("/v1/admin/clusters/runs", json=body))["code"] == "invalid_input"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/clusters", "clusters_not_ready"),
        (f"/v1/clusters?space={'0' * 64}", "space_not_found"),
        ("/v1/clusters/7", "cluster_not_found"),
        ("/v1/clusters/7/members", "cluster_not_found"),
        ("/v1/clusters?cursor=?", "invalid_cursor"),
        ("/v1/clusters/runs?cursor=?", "invalid_cursor"),
        ("/v1/clusters/runs/7", "run_not_found"),
        ("/v1/clusters/runs/7/compare/8", "run_not_found"),
        ("/v1/models/no/such/cluster", "model_not_found"),
        ("/v1/models/owner/model/cluster", "clusters_not_ready"),
    ],
)
def test_missing_resource_returns_its_error_code(database: Database, api: TestClient, path: str, code: str):
    put_model(database)
    assert documented_problem(api.get(path))["code"] == code


def test_invalid_cursor_is_rejected(clustered: Database, api: TestClient):
    response = api.get(f"/v1/clusters/{law_cluster(api)['id']}/members", params={"cursor": "abc"})
    assert documented_problem(response)["code"] == "invalid_cursor"
