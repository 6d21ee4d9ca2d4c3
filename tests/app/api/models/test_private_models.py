"""What some keys alone may see is, for everybody else, as if it were not there: on every route that there is."""

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
from catalog.auth.viewer import EVERYTHING, Viewer, hash_of_key
from catalog.database import Database
from catalog.jobs.quotas import Quota
from catalog.merges import service as merge_service
from catalog.merges.methods import Blend
from catalog.selections import service as selection_service
from catalog.settings import Settings, settings
from catalog.spaces import repository as spaces
from catalog.tables import Job
from catalog.tasks import repository as tasks
from catalog.tasks import service as task_service
from catalog.tasks.examples import read_examples
from tests.support import catalog as entries
from tests.support.api import refresh
from tests.support.clusters import cluster
from tests.support.problem_documents import documented_problem, openapi

SECRET = "hidden-owner/hidden-name"
MY_KEY, YOUR_KEY, ADMIN_KEY = "a long key of my own", "a long key of your own", "a long key of the admins"
ME = hash_of_key(MY_KEY)
MINE, YOURS = {"X-API-Key": MY_KEY}, {"X-API-Key": YOUR_KEY}
OWN_SPACE = replace(entries.SPACE, base_repo="hidden-owner/hidden-base")
PUBLIC = {f"open/m{number}": [1.0, 0.1 + 0.1 * number, 0.0] for number in range(6)}

EXAMPLES = [{"instruction": "Say hidden.", "output": "hidden"}] * 5

# a request to each route, about what is hidden where it can be; of those without a word, `{}`
ASKED: dict[tuple[str, str], dict[str, Any]] = {
    ("post", "/v1/models"): {"json": {"repo_id": SECRET}},
    ("get", "/v1/models"): {},
    ("get", "/v1/models/{owner}/{name}"): {},
    ("get", "/v1/models/{owner}/{name}/neighbors"): {},
    ("get", "/v1/models/{owner}/{name}/revisions"): {},
    ("get", "/v1/models/{owner}/{name}/cluster"): {},
    ("post", "/v1/search"): {"json": {"vector": [1, 0, 0], "k": 3, "group_above": 0.99, "exclude": [SECRET]}},
    ("post", "/v1/search/batch"): {"json": {"repo_ids": [SECRET, "open/m1"], "k": 3, "unconfident": True}},
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
ENDLESS = ("get", "/v1/jobs/events")  # has a test of its own, in test_job_events.py
PLACES = {
    "owner": "hidden-owner",
    "name": "hidden-name",
    "job_id": "7",
    "run_id": "1",
    "other_id": "1",
    "cluster_id": "1",
    "task_id": "1",
    "selection_id": "1",
    "merge_id": "1",
}


def all_routes() -> set[tuple[str, str]]:
    return {(method, path) for path, methods in openapi()["paths"].items() for method in methods}


@pytest.fixture
def catalog(database: Database, api: TestClient) -> Database:
    """Six public models and their jobs."""
    for repo_id, vector in PUBLIC.items():
        entries.put(database, repo_id, vector)
        entries.put_job(database, repo_id)
    refresh(api)
    return database


def hide(database: Database, api: TestClient) -> None:
    """What only I may see: the nearest models to everything, one in a space of its own, and a job, the seventh."""
    job = entries.put_private_job(database, SECRET, ME)
    assert str(job.id) == PLACES["job_id"]
    for number in range(5):
        name = SECRET if number == 0 else f"{SECRET}-{number}"
        entries.put_private(database, name, [1.0, 0.001 * number, 0.0], ME)
    entries.put_private(database, f"{SECRET}-elsewhere", [1.0, 0.0, 0.0], ME, space=OWN_SPACE)
    question = task_service.Question(read_examples(EXAMPLES), name="hidden", keep_examples=True)
    asked, _ = task_service.ask(database, question, Quota(ME, 100), Viewer(ME))
    assert str(asked.id) == PLACES["task_id"]
    with database.transaction() as session:
        space = spaces.get(session, entries.SPACE.key)
        tasks.store(session, asked.runs[0].id, {space.id: np.ones((1, 3), np.float32)}, {})
    selection, _ = selection_service.ask(database, selection_service.Wish("hidden"), Quota(ME, 100), Viewer(ME))
    assert str(selection.id) == PLACES["selection_id"]
    merge, _ = merge_service.ask(database, Blend({"open/m1": 1, "open/m2": 1}), "hidden", Quota(ME, 100), Viewer(ME))
    assert str(merge.id) == PLACES["merge_id"]
    arithmetic_service.save_vector(
        database, PLACES["name"], [1.0, 0.0, 0.0], space_key=entries.SPACE.key, note=None, viewer=Viewer(ME)
    )
    refresh(api)


def answers(api: TestClient, method: str, path: str, **asked: Any) -> list[tuple[int, Any]]:
    """To nobody in particular, and to another key; without what every change of the catalog moves."""
    found = []
    for headers in ({}, YOURS):
        response = api.request(method, path.format(**PLACES), headers=headers, **asked)
        moving = r'"(covered_seq|created_at|updated_at|id)":("[^"]*"|\d+)'
        text = re.sub(moving, "", response.text)
        # which rows are compared at once decides over the last bit of a cosine
        rounded = re.sub(r"\d+\.\d{5,}", lambda number: f"{float(number[0]):.5f}", text)
        found.append((response.status_code, rounded))
    return found


@pytest.mark.exhaustive
@pytest.mark.parametrize(("method", "path"), sorted(all_routes() - {ENDLESS}))
def test_no_route_tells_others_of_what_is_hidden(catalog: Database, api: TestClient, method: str, path: str):
    if path.startswith("/v1/admin/"):
        filled = re.sub(r"\{\w+\}", "1", path.replace("queues/{name}", "queues/encode"))
        assert api.request(method, filled).status_code == 403
        return
    asked = ASKED[method, path]
    if (method, path) == ("post", "/v1/models"):  # leaves a job: told apart from one of a catalog without it below
        hide(catalog, api)
        first, second = (api.post(path, headers=headers, **asked).json() for headers in ({}, YOURS))
        assert first == second
        assert (first["state"], first["attempts"], first["sha"]) == ("queued", 0, None)
        assert first["id"] > int(PLACES["job_id"])
        return
    before = answers(api, method, path, **asked)

    hide(catalog, api)

    assert answers(api, method, path, **asked) == before


def test_routes_that_no_openapi_shows_tell_nothing_either(catalog: Database, api: TestClient):
    hide(catalog, api)
    assert "hidden" not in api.get("/metrics").text
    assert SECRET not in api.get("/map").text


@pytest.mark.parametrize("term", [SECRET, "vector:hidden-name"])
def test_sums_know_what_their_viewer_sees(catalog: Database, api: TestClient, term: str):
    hide(catalog, api)
    asked = {"expression": f"{term} + open/m1", "space": entries.SPACE.key}
    assert api.post("/v1/search", json=asked, headers=MINE).status_code == 200
    response = api.post("/v1/search", json=asked, headers=YOURS)
    assert documented_problem(response)["code"] == "term_not_found"


def test_a_vector_stored_with_a_key_is_that_keys(catalog: Database, api: TestClient):
    hide(catalog, api)
    new = {"name": "hidden-name", "vector": [0.0, 1.0, 0.0], "space": entries.SPACE.key}
    assert api.post("/v1/vectors", json=new, headers=MINE).status_code == 409
    assert api.post("/v1/vectors", json=new).status_code == 201
    assert api.get("/v1/vectors/hidden-name", headers=MINE).json()["vector"] == [1.0, 0.0, 0.0]
    assert api.get("/v1/vectors/hidden-name", headers=YOURS).json()["vector"] == [0.0, 1.0, 0.0]


def test_every_route_is_asked():
    assert {route for route in all_routes() - {ENDLESS} if not route[1].startswith("/v1/admin/")} == set(ASKED)


def test_clusters_are_made_without_what_is_hidden(catalog: Database, api: TestClient, tmp_path: Path):
    hide(catalog, api)
    cluster(catalog, tmp_path, algorithm="kmeans", clusters=1)
    for path in ("/v1/clusters", "/v1/clusters/1", "/v1/clusters/1/members", "/v1/clusters/runs"):
        assert "hidden" not in api.get(path).text
    assert api.get("/v1/clusters/runs/1").json()["models"] == len(PUBLIC)
    response = api.get(f"/v1/models/{SECRET}/cluster", headers=MINE)
    assert documented_problem(response)["code"] == "not_clustered"


# for whom it may be seen


def names(response: Any) -> list[str]:
    return [each["repo_id"] for each in response.raise_for_status().json()["neighbors"]]


def test_its_own_key_finds_it_by_every_way(catalog: Database, api: TestClient):
    hide(catalog, api)
    model = api.get(f"/v1/models/{SECRET}", headers=MINE).json()
    assert (model["repo_id"], model["private"]) == (SECRET, True)
    assert api.get(f"/v1/models/{SECRET}/revisions", headers=MINE).status_code == 200
    listed = api.get("/v1/models", headers=MINE).json()["models"]
    assert len(listed) == len(PUBLIC) + 6
    assert api.get("/v1/models", params={"q": "hidden"}, headers=MINE).json()["models"]
    assert SECRET in names(api.get("/v1/models/open/m0/neighbors", headers=MINE))
    assert names(api.get(f"/v1/models/{SECRET}/neighbors", params={"k": 1}, headers=MINE)) == [f"{SECRET}-1"]
    assert len(api.get("/v1/spaces", headers=MINE).json()["spaces"]) == 2
    assert api.get("/v1/jobs/7", headers=MINE).json()["repo_id"] == SECRET
    assert 7 in [job["id"] for job in api.get("/v1/jobs", headers=MINE).json()["jobs"]]


@pytest.mark.parametrize("more", [{}, {"diversity": 0.5}, {"group_above": 0.9999}, {"owner": ["open", "hidden-owner"]}])
def test_others_get_as_many_neighbours_as_they_ask_for(catalog: Database, api: TestClient, more: dict[str, Any]):
    hide(catalog, api)
    asked = {"vector": [1, 0, 0], "k": 4, "space": entries.SPACE.key, **more}
    found = api.post("/v1/search", json=asked).json()["neighbors"]
    assert len(found) == 4
    assert {each["repo_id"] for each in found} <= set(PUBLIC)
    assert "hidden" not in json.dumps(found)


def test_what_is_taken_back_is_gone_at_once_also_before_the_process_hears_of_it(catalog: Database, api: TestClient):
    hide(catalog, api)
    conf = settings().model_copy(update={"admin_api_key": SecretStr(ADMIN_KEY)})
    api.app.state.settings = conf
    address = f"/v1/admin/models/{SECRET}/access"
    left = api.request("DELETE", address, json={"key": MY_KEY}, headers={"X-Admin-Key": ADMIN_KEY}).json()
    assert left == {"access": []}
    assert SECRET not in names(api.get("/v1/models/open/m0/neighbors", headers=MINE))
    assert api.get(f"/v1/models/{SECRET}", headers=MINE).status_code == 404


def test_what_a_process_has_not_heard_of_as_private_is_not_named(catalog: Database, api: TestClient):
    entries.put_private(catalog, SECRET, [1.0, 0.1, 0.0], ME)
    found = names(api.get("/v1/models/open/m0/neighbors", params={"k": 10}))
    assert len(api.app.state.services.index.index(1, 3)) == len(PUBLIC) + 1  # its vector is here already
    assert len(found) == len(PUBLIC) - 1
    assert SECRET not in found


def test_admins_see_everything_and_let_others_see(catalog: Database, api: TestClient):
    hide(catalog, api)
    api.app.state.settings = settings().model_copy(update={"admin_api_key": SecretStr(ADMIN_KEY)})
    admin = {"X-Admin-Key": ADMIN_KEY}
    assert api.get(f"/v1/models/{SECRET}", headers=admin).status_code == 200
    assert api.get("/v1/jobs/7", headers=admin).status_code == 200
    assert api.get(f"/v1/models/{SECRET}", headers={"X-Admin-Key": "wrong"}).status_code == 404

    address = f"/v1/admin/models/{SECRET}/access"
    granted = api.put(address, json={"submitter": hash_of_key(YOUR_KEY)}, headers=admin).json()["access"]
    assert [(each["submitter"], each["by_admin"]) for each in granted] == [
        (ME, False),
        (hash_of_key(YOUR_KEY), True),
    ]
    assert api.get(address, headers=admin).json()["access"] == granted
    assert api.get(f"/v1/models/{SECRET}", headers=YOURS).status_code == 200


@pytest.mark.parametrize("body", [{}, {"key": "a", "submitter": "b" * 64}, {"submitter": "short"}, {"key": ""}])
def test_whom_to_let_in_is_said_in_one_way(api: TestClient, body: dict[str, str]):
    api.app.state.settings = settings().model_copy(update={"admin_api_key": SecretStr(ADMIN_KEY)})
    response = api.put("/v1/admin/models/a/b/access", json=body, headers={"X-Admin-Key": ADMIN_KEY})
    assert documented_problem(response)["code"] == "invalid_input"


def test_caches_are_told_that_answers_differ_by_key(api: TestClient):
    for path in ("/v1/models", f"/v1/models/{SECRET}", "/v1/map"):
        assert {"X-API-Key", "X-Admin-Key"} <= set(api.get(path).headers["Vary"].split(", "))


# submissions with a token


@pytest.fixture
def taking(database: Database) -> Iterator[TestClient]:
    """An API that takes tokens; without its lifespan's threads it serves submissions all the same."""
    key = SecretStr(Fernet.generate_key().decode())
    with TestClient(create_app(settings().model_copy(update={"feed_interval": 3600, "token_key": key}))) as client:
        yield client


def test_a_token_is_sealed_on_its_job_and_in_no_answer(taking: TestClient, database: Database):
    response = taking.post("/v1/models", json={"repo_id": SECRET}, headers={**MINE, "X-Hub-Token": "hf_recognisable"})
    assert response.status_code == 202
    assert "recognisable" not in response.text
    job = taking.get(f"/v1/jobs/{response.json()['id']}", headers=MINE).json()
    assert "token" not in job
    with database.transaction() as session:
        stored = session.get_one(Job, job["id"])
    assert b"recognisable" not in stored.token
    box: TokenBox = taking.app.state.tokens
    assert box.open(stored.token, ME).get_secret_value() == "hf_recognisable"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "key_required"),
        ({**MINE, "X-Hub-Token": "two words"}, 422, "token_malformed"),
    ],
)
def test_a_token_needs_a_key_and_a_form(taking: TestClient, headers: dict[str, str], status: int, code: str):
    response = taking.post("/v1/models", json={"repo_id": SECRET}, headers={"X-Hub-Token": "hf_me", **headers})
    assert (response.status_code, documented_problem(response)["code"]) == (status, code)
    assert "two words" not in response.text


def test_where_no_key_to_seal_with_is_set_no_token_is_taken(api: TestClient):
    response = api.post("/v1/models", json={"repo_id": SECRET}, headers={**MINE, "X-Hub-Token": "hf_recognisable"})
    assert documented_problem(response)["code"] == "tokens_off"
    assert "recognisable" not in response.text


def test_a_retry_of_what_came_with_a_token_asks_for_it_again(taking: TestClient):
    job = taking.post("/v1/models", json={"repo_id": SECRET}, headers={**MINE, "X-Hub-Token": "hf_me"}).json()
    assert taking.post(f"/v1/jobs/{job['id']}/cancel", headers=YOURS).status_code == 404
    assert taking.post(f"/v1/jobs/{job['id']}/cancel", headers=MINE).json()["state"] == "cancelled"
    response = taking.post(f"/v1/jobs/{job['id']}/retry", headers=MINE)
    assert documented_problem(response)["code"] == "token_required"


def test_a_process_with_a_key_that_is_none_does_not_start():
    with pytest.raises(Exception, match="DELTADEX_TOKEN_KEY") as refused:
        create_app(Settings(token_key=SecretStr("swordfish")))
    assert "swordfish" not in str(refused.value)


def test_a_viewer_is_by_the_hash_of_a_key():
    assert Viewer.of_key(MY_KEY) == Viewer(ME)
    assert EVERYTHING.sees(ME)
    assert not Viewer.of_key("").sees(ME)
