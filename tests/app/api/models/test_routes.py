from __future__ import annotations

from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from app.api.limits import SMALL
from catalog.database import Database
from catalog.index.follower import IndexFollower
from catalog.jobs.repository import attempts
from catalog.search.service import MAX_K
from catalog.spaces import repository as spaces
from catalog.tables import BaseProof
from tests.support import catalog as entries
from tests.support.api import refresh
from tests.support.problem_documents import documented_problem


@pytest.fixture
def fan(database: Database, api: TestClient) -> list[str]:
    """Five indexed models whose vectors spread from one axis to the other."""
    names = [f"fan/m{number}" for number in range(5)]
    for number, name in enumerate(names):
        entries.put(database, name, [4 - number, number])
    refresh(api)
    return names


def finish(database: Database, job_id: int, repo_id: str, commit: str) -> None:
    worker = entries.put_worker(database)
    entries.claim(database, job_id, worker)
    entries.put(database, repo_id, [1, 0], commit=commit)
    with database.transaction() as session:
        assert attempts.finish(session, job_id, worker, entries.sha(commit))


def test_submission_creates_a_job(api: TestClient):
    response = api.post("/v1/models", json={"repo_id": "owner/model", "revision": "main"})

    assert response.status_code == 202
    job = response.json()
    assert (job["repo_id"], job["revision"], job["state"]) == ("owner/model", "main", "queued")
    assert (job["sha"], job["progress"], job["attempts"], job["error"]) == (None, 0, 0, None)
    assert job["created_at"]
    assert api.get(f"/v1/jobs/{job['id']}").json() == {**job, "worker_deaths": 0, "history": []}


def test_submission_may_name_the_base(api: TestClient):
    job = api.post("/v1/models", json={"repo_id": "owner/model", "base": "o/base"}).json()
    assert api.get(f"/v1/jobs/{job['id']}").json()["base"] == "o/base"


def test_submission_of_an_indexed_commit_on_another_base_creates_a_job(api: TestClient, database: Database):
    job = api.post("/v1/models", json={"repo_id": "owner/model"}).json()
    finish(database, job["id"], "owner/model", "one")
    body = {"repo_id": "owner/model", "revision": entries.sha("one")}

    same = api.post("/v1/models", json={**body, "base": entries.BASE})
    other = api.post("/v1/models", json={**body, "base": "o/other"})

    assert (same.status_code, same.json()["id"]) == (200, job["id"])
    assert (other.status_code, other.json()["base"]) == (202, "o/other")


def test_repeated_submission_returns_the_same_job(api: TestClient):
    responses = [api.post("/v1/models", json={"repo_id": "owner/model"}) for _ in range(3)]
    assert {response.status_code for response in responses} == {202}
    assert len({response.json()["id"] for response in responses}) == 1


def test_submission_of_an_indexed_commit_returns_its_job(api: TestClient, database: Database):
    job = api.post("/v1/models", json={"repo_id": "owner/model"}).json()
    finish(database, job["id"], "owner/model", "one")

    again = api.post("/v1/models", json={"repo_id": "owner/model", "revision": entries.sha("one")})
    other = api.post("/v1/models", json={"repo_id": "owner/model", "revision": entries.sha("two")})

    assert (again.status_code, again.json()["id"], again.json()["state"]) == (200, job["id"], "done")
    assert again.json()["sha"] == entries.sha("one")
    assert other.status_code == 202


def test_submission_of_an_indexed_branch_creates_a_job(api: TestClient, database: Database):
    job = api.post("/v1/models", json={"repo_id": "owner/model", "revision": "main"}).json()
    finish(database, job["id"], "owner/model", "one")

    again = api.post("/v1/models", json={"repo_id": "owner/model", "revision": "main"})
    assert (again.status_code, again.json()["id"] != job["id"]) == (202, True)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"repo_id": "no slash"}, "invalid_repo_id"),
        ({"repo_id": ""}, "invalid_repo_id"),
        ({"repo_id": "a/../b"}, "invalid_repo_id"),
        ({"repo_id": "local/folder"}, "invalid_repo_id"),
        ({"repo_id": "a/b", "revision": ""}, "invalid_revision"),
        ({"repo_id": "a/b", "revision": "../x"}, "invalid_revision"),
        ({"repo_id": "a/b", "base": ""}, "invalid_repo_id"),
        ({"repo_id": "a/b", "base": "/models/llama"}, "invalid_repo_id"),
        ({"repo_id": "a/b", "path": "/etc"}, "invalid_input"),
        ({"repo_id": "a/b", "folder": "/etc"}, "invalid_input"),
        ({"repo_id": 3}, "invalid_input"),
        ({"repo_id": None}, "invalid_input"),
        ({"repo_id": "a/" + "b" * 500}, "invalid_input"),
        ({"repo_id": "a/b", "revision": "x" * 256}, "invalid_input"),
        ({}, "invalid_input"),
        ([], "invalid_input"),
        (None, "invalid_input"),
    ],
    ids=str,
)
def test_invalid_submission_is_rejected(api: TestClient, body: object, code: str):
    response = api.post("/v1/models", json=body)

    assert response.status_code == 422
    assert documented_problem(response)["code"] == code
    assert api.get("/v1/jobs").json()["jobs"] == []


def test_problem_lists_invalid_fields(api: TestClient):
    content = documented_problem(api.post("/v1/models", json={"repo_id": 3, "path": "x"}))
    assert {error["field"] for error in content["errors"]} == {"body.repo_id", "body.path"}


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"repo_id=a/b", b'{"repo_id": "a/\\ud800"}', b'{"\\ud800": 1}'])
def test_invalid_json_is_rejected(api: TestClient, body: bytes):
    response = api.post("/v1/models", content=body, headers={"Content-Type": "application/json"})
    assert documented_problem(response)["code"] == "invalid_input"


def test_body_over_the_limit_is_rejected_without_content_length(api: TestClient):
    headers = {"Content-Type": "application/json"}
    with_length = api.post("/v1/models", content=b" " * (SMALL.size + 1), headers=headers)
    streamed = api.post("/v1/models", content=(b" " * 10_000 for _ in range(SMALL.size // 10_000 + 1)), headers=headers)

    for response in (with_length, streamed):
        assert response.status_code == 413
        assert documented_problem(response)["code"] == "body_too_large"


def test_models_are_listed_oldest_first(api: TestClient, fan: list[str]):
    page = api.get("/v1/models").json()

    assert [model["repo_id"] for model in page["models"]] == fan
    assert page["next_cursor"] is None
    first = page["models"][0]
    assert (first["state"], first["source"]) == ("indexed", "hub")
    assert first["revision"]["base"] == {
        "repo_id": entries.BASE,
        "sha": "b" * 40,
        "evidence": {"declared": entries.BASE},
    }


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 200])
def test_pages_contain_each_model_once(api: TestClient, fan: list[str], limit: int):
    repo_ids, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        query = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        page = api.get("/v1/models", params=query).json()
        assert len(page["models"]) <= limit
        repo_ids += [model["repo_id"] for model in page["models"]]
        cursor, pages = page["next_cursor"], pages + 1
    assert repo_ids == fan


def test_model_added_between_two_pages_shifts_nothing(api: TestClient, database: Database, fan: list[str]):
    first = api.get("/v1/models", params={"limit": 3}).json()
    entries.put(database, "fan/late", [1, 1])
    second = api.get("/v1/models", params={"limit": 9, "cursor": first["next_cursor"]}).json()
    assert [model["repo_id"] for model in first["models"] + second["models"]] == [*fan, "fan/late"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"owner": "fan"}, 5),
        ({"owner": "new"}, 1),
        ({"owner": "nobody"}, 0),
        ({"base": entries.BASE}, 5),
        ({"base": "other/base"}, 0),
        ({"state": "indexed"}, 5),
        ({"state": "pending"}, 1),
        ({"state": "pending", "owner": "fan"}, 0),
    ],
    ids=str,
)
def test_list_is_filtered(api: TestClient, database: Database, fan: list[str], filters: dict, expected: int):
    entries.put_model(database, "new/model")
    assert len(api.get("/v1/models", params=filters).json()["models"]) == expected


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("cursor=", "invalid_cursor"),
        ("cursor=nonsense", "invalid_cursor"),
        ("cursor=LTE", "invalid_cursor"),  # -1
        ("cursor=OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk", "invalid_cursor"),  # more than a bigint holds
        ("cursor=%00", "invalid_cursor"),
        ("limit=0", "invalid_input"),
        ("limit=201", "invalid_input"),
        ("limit=x", "invalid_input"),
        ("state=done", "invalid_input"),
        ("owner=%00", "invalid_input"),
        ("base=a%00b", "invalid_input"),
        ("page=2", "invalid_input"),
        ("repo_id=a/b", "invalid_input"),
    ],
)
def test_invalid_list_query_is_rejected(api: TestClient, query: str, code: str):
    response = api.get(f"/v1/models?{query}")
    assert response.status_code == 422
    assert documented_problem(response)["code"] == code


def test_model_shows_its_current_revision(api: TestClient, database: Database, fan: list[str]):
    entries.put(database, fan[0], [1, 1], commit="two")

    model = api.get(f"/v1/models/{fan[0]}").json()

    assert model["repo_id"] == fan[0]
    assert (model["revision"]["sha"], model["revision"]["kind"]) == (entries.sha("two"), "lora")


def test_model_shows_how_its_base_runs(api: TestClient, database: Database, fan: list[str]):
    assert api.get(f"/v1/models/{fan[0]}").json()["base_proof"] is None
    base = api.get(f"/v1/models/{fan[0]}").json()["revision"]["base"]
    reason = "Its packed states differ."
    key = {"base_repo": base["repo_id"], "base_sha": base["sha"], "dtype": "float32"}
    with database.transaction() as session:
        spaces.store_proof(session, BaseProof(**key, path="packed", error=1e-6, reason="", kinds={}))
    with database.transaction() as session:
        spaces.store_proof(session, BaseProof(**key, path="plain", error=0.2, reason=reason, kinds={"lora": None}))
    proof = api.get(f"/v1/models/{fan[0]}").json()["base_proof"]
    assert (proof["path"], proof["error"], proof["reason"], proof["kinds"]) == ("plain", 0.2, reason, {"lora": None})
    assert api.get("/v1/stats").json()["bases"] == {"plain": 1}


def test_pending_model_has_no_revision(api: TestClient, database: Database):
    entries.put_model(database, "owner/model")
    model = api.get("/v1/models/owner/model").json()
    assert (model["state"], model["revision"]) == ("pending", None)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/models/no/body", 404, "model_not_found"),
        ("/v1/models/no/body/neighbors", 404, "model_not_found"),
        ("/v1/models/-no/body", 422, "invalid_repo_id"),
        ("/v1/models/a%00/b", 422, "invalid_repo_id"),
        ("/v1/models/-no/body/neighbors", 422, "invalid_repo_id"),
        ("/v1/models/fan/m0?full=1", 422, "invalid_input"),
        ("/v1/models/fan/m0/neighbors?limit=3", 422, "invalid_input"),
        ("/v1/models/fan/m0/neighbors?k=0", 422, "invalid_input"),
        (f"/v1/models/fan/m0/neighbors?k={MAX_K + 1}", 422, "invalid_input"),
        ("/v1/models/fan/m0/neighbors?min_similarity=1.1", 422, "invalid_input"),
        ("/v1/models/fan/m0/neighbors?min_similarity=nan", 422, "invalid_input"),
        ("/v1/models/fan/m0/neighbors?space=SHORT", 422, "invalid_input"),
        (f"/v1/models/fan/m0/neighbors?space={'0' * 64}", 404, "space_not_found"),
        ("/v1/models/new/model/neighbors", 409, "not_indexed"),
        ("/v1/models/fan/still/neighbors", 409, "no_shift"),
    ],
)
def test_invalid_model_request_returns_a_problem(
    api: TestClient, database: Database, fan: list[str], path: str, status: int, code: str
):
    entries.put_model(database, "new/model")
    entries.put(database, "fan/still", [1e-9, 0], no_shift=True)

    response = api.get(path)

    assert response.status_code == status
    assert documented_problem(response)["code"] == code


def test_neighbors_are_sorted_by_cosine(api: TestClient, fan: list[str]):
    answer = api.get("/v1/models/fan/m0/neighbors").json()

    assert [neighbor["repo_id"] for neighbor in answer["neighbors"]] == fan[1:]
    assert answer["neighbors"][0]["similarity"] == pytest.approx(3 / 10**0.5, abs=1e-6)
    assert answer["neighbors"][0] | {"similarity": 0} == {
        "repo_id": "fan/m1",
        "similarity": 0,
        "sha": entries.sha("one"),
        "base": entries.BASE,
        "kind": "lora",
        "duplicates": [],
    }


def test_answer_contains_its_space(api: TestClient, fan: list[str]):
    answer = api.get("/v1/models/fan/m0/neighbors").json()
    assert answer["space"] == entries.SPACE.as_dict() | {"dimension": 2, "serving": True}
    assert answer["exact"] is True
    assert answer["covered_seq"] > 0
    assert api.get("/v1/models/fan/m0/neighbors", params={"space": answer["space"]["key"]}).json() == answer


@pytest.mark.parametrize(
    ("query", "expected"), [({"k": 2}, 2), ({"k": MAX_K}, 4), ({"min_similarity": 0.9}, 1), ({"min_similarity": 1}, 0)]
)
def test_k_and_min_similarity_limit_neighbors(api: TestClient, fan: list[str], query: dict, expected: int):
    assert len(api.get("/v1/models/fan/m0/neighbors", params=query).json()["neighbors"]) == expected


def test_neighbors_return_503_until_the_index_is_loaded(api: TestClient, database: Database, fan: list[str]):
    services = api.app.state.services
    api.app.state.services = replace(services, index=IndexFollower(database, interval=1))  # not loaded
    response = api.get("/v1/models/fan/m0/neighbors")
    assert response.status_code == 503
    assert documented_problem(response)["code"] == "index_not_loaded"
    assert response.headers["Retry-After"] == "1"
