"""Private models are invisible to viewers without access, on every route."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.fernet import Fernet
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.main import create_app
from catalog.arithmetic import service as arithmetic_service
from catalog.auth.hub_tokens import TokenBox
from catalog.auth.viewer import ADMIN, Viewer, hash_key
from catalog.auth.viewer import PUBLIC as PUBLIC_VIEWER
from catalog.database import Database
from catalog.jobs.quotas import Quota
from catalog.merges import service as merge_service
from catalog.merges.methods import MergeSpec
from catalog.models import curation
from catalog.selections import service as selection_service
from catalog.settings import Settings, settings
from catalog.spaces import repository as spaces
from catalog.tables import Job
from catalog.tasks import repository as tasks
from catalog.tasks import service as task_service
from catalog.tasks.examples import parse_examples
from tests.support import catalog as entries
from tests.support.api import refresh
from tests.support.clusters import cluster
from tests.support.keys import AS_ADMIN, add_key
from tests.support.problem_documents import documented_problem, openapi

SECRET = "hidden-owner/hidden-name"
MY_KEY, YOUR_KEY = "a long key of my own", "a long key of your own"
ME = hash_key(MY_KEY)
MY_HEADERS, YOUR_HEADERS = {"X-API-Key": MY_KEY}, {"X-API-Key": YOUR_KEY}
OWN_SPACE = replace(entries.SPACE, base_repo="hidden-owner/hidden-base")
PUBLIC = {f"open/m{number}": [1.0, 0.1 + 0.1 * number, 0.0] for number in range(6)}

EXAMPLES = [{"instruction": "Say hidden.", "output": "hidden"}] * 5

# a request for each route, naming something private where possible
REQUESTS: dict[tuple[str, str], dict[str, Any]] = {
    ("post", "/v1/models"): {"json": {"repo_id": SECRET}},
    ("get", "/v1/models"): {},
    ("get", "/v1/models/{owner}/{name}"): {},
    ("delete", "/v1/models/{owner}/{name}"): {},
    ("get", "/v1/models/{owner}/{name}/neighbors"): {},
    ("get", "/v1/models/{owner}/{name}/revisions"): {},
    ("get", "/v1/models/{owner}/{name}/cluster"): {},
    ("patch", "/v1/models/{owner}/{name}/team-tags"): {"json": {"add": ["seen"]}},
    ("put", "/v1/models/{owner}/{name}/note"): {"json": {"text": "seen"}},
    ("delete", "/v1/models/{owner}/{name}/note"): {},
    ("get", "/v1/aliases"): {},
    ("put", "/v1/aliases/{alias}"): {"json": {"repo_id": "open/m1"}},
    ("delete", "/v1/aliases/{alias}"): {},
    ("post", "/v1/search"): {"json": {"vector": [1, 0, 0], "k": 3, "group_above": 0.99, "exclude": [SECRET]}},
    ("post", "/v1/search/batch"): {"json": {"repo_ids": [SECRET, "open/m1"], "k": 3, "include_low_confidence": True}},
    ("post", "/v1/vectors"): {"json": {"name": "mine", "expression": f"{SECRET} + open/m1"}},
    ("get", "/v1/vectors"): {},
    ("get", "/v1/vectors/{name}"): {},
    ("delete", "/v1/vectors/{name}"): {},
    ("post", "/v1/tasks"): {"json": {"examples": EXAMPLES, "base": "hidden-owner/hidden-base"}},
    ("get", "/v1/tasks"): {},
    ("get", "/v1/tasks/{task_id}"): {},
    ("delete", "/v1/tasks/{task_id}"): {},
    ("get", "/v1/tasks/{task_id}/adapter"): {},
    ("get", "/v1/tasks/{task_id}/neighbors"): {},
    ("post", "/v1/selections"): {"json": {"task": "hidden"}},
    ("get", "/v1/selections"): {},
    ("get", "/v1/selections/{selection_id}"): {},
    ("delete", "/v1/selections/{selection_id}"): {},
    ("post", "/v1/merges"): {"json": {"models": [SECRET, "open/m1"]}},
    ("post", "/v1/merges/plan"): {"json": {"models": ["open/m1", "open/m2"], "k": 3}},
    ("get", "/v1/merges"): {},
    ("get", "/v1/merges/{merge_id}"): {},
    ("delete", "/v1/merges/{merge_id}"): {},
    ("get", "/v1/merges/{merge_id}/adapter"): {},
    ("get", "/v1/merges/{merge_id}/neighbors"): {},
    ("get", "/v1/spaces"): {},
    ("get", "/v1/jobs"): {},
    ("get", "/v1/jobs/{job_id}"): {},
    ("get", "/v1/jobs/{job_id}/events"): {},
    ("post", "/v1/jobs/{job_id}/cancel"): {},
    ("post", "/v1/jobs/{job_id}/retry"): {},
    ("get", "/v1/stats"): {},
    ("get", "/v1/map"): {},
    ("get", "/v1/clusters"): {},
    ("get", "/v1/clusters/runs"): {},
    ("get", "/v1/clusters/runs/{run_id}"): {},
    ("get", "/v1/clusters/runs/{run_id}/compare/{other_id}"): {},
    ("get", "/v1/clusters/{cluster_id}"): {},
    ("get", "/v1/clusters/{cluster_id}/members"): {},
    ("post", "/v1/webhooks/hub"): {"json": {}},
    ("get", "/healthz"): {},
    ("get", "/readyz"): {},
}
ENDLESS = ("get", "/v1/jobs/events")  # tested in tests/app/api/jobs/test_event_routes.py
PATH_PARAMS = {
    "owner": "hidden-owner",
    "name": "hidden-name",
    "job_id": "7",
    "run_id": "1",
    "other_id": "1",
    "cluster_id": "1",
    "task_id": "1",
    "selection_id": "1",
    "merge_id": "1",
    "alias": "hidden",
}


def all_routes() -> set[tuple[str, str]]:
    return {(method, path) for path, methods in openapi()["paths"].items() for method in methods}


@pytest.fixture
def catalog(database: Database, api: TestClient) -> Database:
    """Six public models and their jobs, and the keys of two submitters. The client sends no key by itself."""
    for key in (MY_KEY, YOUR_KEY):
        add_key(database, key)
    del api.headers["X-API-Key"]
    for repo_id, vector in PUBLIC.items():
        entries.put(database, repo_id, vector)
        entries.put_job(database, repo_id)
    refresh(api)
    return database


def hide(database: Database, api: TestClient) -> None:
    """Add private rows of mine: the models nearest to all others, one in another space, job 7, a task, and so on."""
    job = entries.put_private_job(database, SECRET, ME)
    assert str(job.id) == PATH_PARAMS["job_id"]
    for number in range(5):
        name = SECRET if number == 0 else f"{SECRET}-{number}"
        entries.put_private(database, name, [1.0, 0.001 * number, 0.0], ME)
    entries.put_private(database, f"{SECRET}-elsewhere", [1.0, 0.0, 0.0], ME, space=OWN_SPACE)
    request = task_service.TaskRequest(parse_examples(EXAMPLES), name="hidden", keep_examples=True)
    task, _ = task_service.create(database, request, Quota(ME, 100), Viewer(ME))
    assert str(task.id) == PATH_PARAMS["task_id"]
    with database.transaction() as session:
        space = spaces.get(session, entries.SPACE.key)
        tasks.store(session, task.runs[0].id, {space.id: np.ones((1, 3), np.float32)}, {})
    selection, _ = selection_service.create(
        database, selection_service.SelectionRequest("hidden"), Quota(ME, 100), Viewer(ME)
    )
    assert str(selection.id) == PATH_PARAMS["selection_id"]
    merge, _ = merge_service.create(
        database, MergeSpec({"open/m1": 1, "open/m2": 1}), "hidden", Quota(ME, 100), Viewer(ME)
    )
    assert str(merge.id) == PATH_PARAMS["merge_id"]
    arithmetic_service.store_vector(
        database, PATH_PARAMS["name"], [1.0, 0.0, 0.0], space_key=entries.SPACE.key, note=None, viewer=Viewer(ME)
    )
    curation.set_alias(database, PATH_PARAMS["alias"], SECRET, Viewer(ME))
    curation.change_tags(database, SECRET, add=["hidden"], remove=[], viewer=Viewer(ME))
    refresh(api)


def prefix(key: str) -> str:
    """The visible part of a key of `add_key`."""
    return f"ddx_{hash_key(key)[:8]}"


def responses(api: TestClient, method: str, path: str, **request: Any) -> list[tuple[int, Any]]:
    """Responses to the public and to another key, without the fields that every change of the catalog changes."""
    results = []
    for headers in ({}, YOUR_HEADERS):
        response = api.request(method, path.format(**PATH_PARAMS), headers=headers, **request)
        volatile = r'"(covered_seq|created_at|updated_at|written_at|id)":("[^"]*"|\d+)'
        text = re.sub(volatile, "", response.text)
        # the last bits of a cosine depend on which rows are compared together
        rounded = re.sub(r"\d+\.\d{5,}", lambda number: f"{float(number[0]):.5f}", text)
        results.append((response.status_code, rounded))
    return results


@pytest.mark.exhaustive
@pytest.mark.parametrize(("method", "path"), sorted(all_routes() - {ENDLESS}))
def test_no_route_reveals_private_models_to_others(catalog: Database, api: TestClient, method: str, path: str):
    if path.startswith("/v1/admin/"):
        full_path = re.sub(r"\{\w+\}", "1", path.replace("queues/{name}", "queues/encode"))
        assert api.request(method, full_path).status_code == 401
        return
    request = REQUESTS[method, path]
    if (method, path) == ("post", "/v1/models"):  # creates a job, so compare the two viewers with each other
        hide(catalog, api)
        first, second = (api.post(path, headers=YOUR_HEADERS, **request).json() for _ in range(2))
        assert first == second
        assert (first["state"], first["attempts"], first["sha"]) == ("queued", 0, None)
        assert first["id"] > int(PATH_PARAMS["job_id"])
        return
    before = responses(api, method, path, **request)

    hide(catalog, api)

    assert responses(api, method, path, **request) == before


def test_routes_outside_openapi_reveal_no_private_models(catalog: Database, api: TestClient):
    hide(catalog, api)
    assert "hidden" not in api.get("/metrics", headers=AS_ADMIN).text
    assert SECRET not in api.get("/map").text


@pytest.mark.parametrize("term", [SECRET, "vector:hidden-name"])
def test_expression_terms_are_visible_only_to_their_viewer(catalog: Database, api: TestClient, term: str):
    hide(catalog, api)
    request = {"expression": f"{term} + open/m1", "space": entries.SPACE.key}
    assert api.post("/v1/search", json=request, headers=MY_HEADERS).status_code == 200
    response = api.post("/v1/search", json=request, headers=YOUR_HEADERS)
    assert documented_problem(response)["code"] == "term_not_found"


def test_stored_vector_belongs_to_its_api_key(catalog: Database, api: TestClient):
    hide(catalog, api)
    new = {"name": "hidden-name", "vector": [0.0, 1.0, 0.0], "space": entries.SPACE.key}
    assert api.post("/v1/vectors", json=new, headers=MY_HEADERS).status_code == 409
    assert api.post("/v1/vectors", json=new, headers=YOUR_HEADERS).status_code == 201
    assert api.get("/v1/vectors/hidden-name", headers=MY_HEADERS).json()["vector"] == [1.0, 0.0, 0.0]
    assert api.get("/v1/vectors/hidden-name", headers=YOUR_HEADERS).json()["vector"] == [0.0, 1.0, 0.0]


def test_every_route_has_a_request_in_this_file():
    assert {route for route in all_routes() - {ENDLESS} if not route[1].startswith("/v1/admin/")} == set(REQUESTS)


def test_clusters_contain_no_private_models(catalog: Database, api: TestClient, tmp_path: Path):
    hide(catalog, api)
    cluster(catalog, tmp_path, algorithm="kmeans", clusters=1)
    for path in ("/v1/clusters", "/v1/clusters/1", "/v1/clusters/1/members", "/v1/clusters/runs"):
        assert "hidden" not in api.get(path).text
    assert api.get("/v1/clusters/runs/1").json()["models"] == len(PUBLIC)
    response = api.get(f"/v1/models/{SECRET}/cluster", headers=MY_HEADERS)
    assert documented_problem(response)["code"] == "clusters_not_ready"


# viewers with access


def neighbor_names(response: Any) -> list[str]:
    return [neighbor["repo_id"] for neighbor in response.raise_for_status().json()["neighbors"]]


def test_owner_finds_the_private_model_everywhere(catalog: Database, api: TestClient):
    hide(catalog, api)
    model = api.get(f"/v1/models/{SECRET}", headers=MY_HEADERS).json()
    assert (model["repo_id"], model["private"]) == (SECRET, True)
    assert api.get(f"/v1/models/{SECRET}/revisions", headers=MY_HEADERS).status_code == 200
    models = api.get("/v1/models", headers=MY_HEADERS).json()["models"]
    assert len(models) == len(PUBLIC) + 6
    assert api.get("/v1/models", params={"q": "hidden"}, headers=MY_HEADERS).json()["models"]
    assert SECRET in neighbor_names(api.get("/v1/models/open/m0/neighbors", headers=MY_HEADERS))
    nearest = api.get(f"/v1/models/{SECRET}/neighbors", params={"k": 1}, headers=MY_HEADERS)
    assert neighbor_names(nearest) == [f"{SECRET}-1"]
    assert len(api.get("/v1/spaces", headers=MY_HEADERS).json()["spaces"]) == 2
    assert api.get("/v1/jobs/7", headers=MY_HEADERS).json()["repo_id"] == SECRET
    assert 7 in [job["id"] for job in api.get("/v1/jobs", headers=MY_HEADERS).json()["jobs"]]


@pytest.mark.parametrize(
    "options", [{}, {"diversity": 0.5}, {"group_above": 0.9999}, {"owner": ["open", "hidden-owner"]}]
)
def test_others_still_get_k_neighbors(catalog: Database, api: TestClient, options: dict[str, Any]):
    hide(catalog, api)
    request = {"vector": [1, 0, 0], "k": 4, "space": entries.SPACE.key, **options}
    neighbors = api.post("/v1/search", json=request).json()["neighbors"]
    assert len(neighbors) == 4
    assert {neighbor["repo_id"] for neighbor in neighbors} <= set(PUBLIC)
    assert "hidden" not in json.dumps(neighbors)


def test_revoked_access_takes_effect_before_the_index_syncs(catalog: Database, api: TestClient):
    hide(catalog, api)
    path = f"/v1/admin/models/{SECRET}/access"
    remaining = api.request("DELETE", path, json={"prefix": prefix(MY_KEY)}, headers=AS_ADMIN).json()
    assert remaining == {"access": []}
    assert SECRET not in neighbor_names(api.get("/v1/models/open/m0/neighbors", headers=MY_HEADERS))
    assert api.get(f"/v1/models/{SECRET}", headers=MY_HEADERS).status_code == 404


def test_private_model_is_hidden_before_its_attributes_sync(catalog: Database, api: TestClient):
    entries.put_private(catalog, SECRET, [1.0, 0.1, 0.0], ME)
    neighbors = neighbor_names(api.get("/v1/models/open/m0/neighbors", params={"k": 10}))
    assert len(api.app.state.services.index.index(1, 3)) == len(PUBLIC) + 1  # its vector is in the index already
    assert len(neighbors) == len(PUBLIC) - 1
    assert SECRET not in neighbors


def test_admin_sees_private_models_and_grants_access(catalog: Database, api: TestClient):
    hide(catalog, api)
    assert api.get(f"/v1/models/{SECRET}", headers=AS_ADMIN).status_code == 200
    assert api.get("/v1/jobs/7", headers=AS_ADMIN).status_code == 200
    assert api.get(f"/v1/models/{SECRET}").status_code == 404

    path = f"/v1/admin/models/{SECRET}/access"
    access = api.put(path, json={"prefix": prefix(YOUR_KEY)}, headers=AS_ADMIN).json()["access"]
    assert [(grant["prefix"], grant["name"], grant["by_admin"]) for grant in access] == [
        (prefix(MY_KEY), MY_KEY, False),
        (prefix(YOUR_KEY), YOUR_KEY, True),
    ]
    assert api.get(path, headers=AS_ADMIN).json()["access"] == access
    assert api.get(f"/v1/models/{SECRET}", headers=YOUR_HEADERS).status_code == 200


@pytest.mark.parametrize("body", [{}, {"key": "a"}, {"prefix": "x" * 101}])
def test_invalid_grantee_is_rejected(api: TestClient, body: dict[str, str]):
    response = api.put("/v1/admin/models/a/b/access", json=body)
    assert documented_problem(response)["code"] == "invalid_input"


def test_access_of_an_unknown_key_is_rejected(catalog: Database, api: TestClient):
    hide(catalog, api)
    path = f"/v1/admin/models/{SECRET}/access"
    response = api.put(path, json={"prefix": "ddx_00000000"}, headers=AS_ADMIN)
    assert documented_problem(response)["code"] == "key_not_found"


# submissions with a Hub token


@pytest.fixture
def token_api(database: Database) -> Iterator[TestClient]:
    """An API with a token key."""
    key = SecretStr(Fernet.generate_key().decode())
    for submitter in (MY_KEY, YOUR_KEY):
        add_key(database, submitter)
    conf = settings().model_copy(update={"feed_interval": 3600, "token_key": key})
    with TestClient(create_app(conf), "http://localhost") as client:
        yield client


def test_hub_token_is_stored_encrypted_and_never_returned(token_api: TestClient, database: Database):
    response = token_api.post(
        "/v1/models", json={"repo_id": SECRET}, headers={**MY_HEADERS, "X-Hub-Token": "hf_recognizable"}
    )
    assert response.status_code == 202
    assert "recognizable" not in response.text
    job = token_api.get(f"/v1/jobs/{response.json()['id']}", headers=MY_HEADERS).json()
    assert "token" not in job
    with database.transaction() as session:
        stored = session.get_one(Job, job["id"])
    assert b"recognizable" not in stored.token
    box: TokenBox = token_api.app.state.tokens
    assert box.open(stored.token, ME).get_secret_value() == "hf_recognizable"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "key_required"),
        ({**MY_HEADERS, "X-Hub-Token": "two words"}, 422, "invalid_hub_token"),
    ],
)
def test_hub_token_requires_an_api_key_and_a_valid_format(
    token_api: TestClient, headers: dict[str, str], status: int, code: str
):
    response = token_api.post("/v1/models", json={"repo_id": SECRET}, headers={"X-Hub-Token": "hf_me", **headers})
    assert (response.status_code, documented_problem(response)["code"]) == (status, code)
    assert "two words" not in response.text


def test_hub_token_is_rejected_without_a_token_key(catalog: Database, api: TestClient):
    response = api.post(
        "/v1/models", json={"repo_id": SECRET}, headers={**MY_HEADERS, "X-Hub-Token": "hf_recognizable"}
    )
    assert documented_problem(response)["code"] == "hub_tokens_disabled"
    assert "recognizable" not in response.text


def test_retry_of_a_job_with_a_token_requires_the_token(token_api: TestClient):
    job = token_api.post("/v1/models", json={"repo_id": SECRET}, headers={**MY_HEADERS, "X-Hub-Token": "hf_me"}).json()
    assert token_api.post(f"/v1/jobs/{job['id']}/cancel", headers=YOUR_HEADERS).status_code == 404
    assert token_api.post(f"/v1/jobs/{job['id']}/cancel", headers=MY_HEADERS).json()["state"] == "cancelled"
    response = token_api.post(f"/v1/jobs/{job['id']}/retry", headers=MY_HEADERS)
    assert documented_problem(response)["code"] == "hub_token_required"


def test_app_with_an_invalid_token_key_does_not_start():
    with pytest.raises(Exception, match="DELTADEX_TOKEN_KEY") as raised:
        create_app(Settings(token_key=SecretStr("swordfish")))
    assert "swordfish" not in str(raised.value)


def test_row_of_a_key_is_seen_by_that_key_and_by_admins():
    assert Viewer(ME).can_see(ME)
    assert ADMIN.can_see(ME)
    assert not Viewer(hash_key(YOUR_KEY)).can_see(ME)
    assert not PUBLIC_VIEWER.can_see(ME)
