from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.main import create_app
from catalog.database import Database
from catalog.errors import HubUnavailable, Quarantined
from catalog.jobs.repository import attempts, workers
from catalog.settings import settings
from tests.support import catalog as entries
from tests.support.problem_documents import documented_problem

MINE = "mine and nobody else's"
ADMIN = {"X-Admin-Key": "let me in, I am the admin"}


@pytest.fixture
def api(database: Database) -> Iterator[TestClient]:
    given = {"feed_interval": 3600, "max_active_jobs": 2, "admin_api_key": SecretStr("let me in, I am the admin")}
    conf = settings().model_copy(update=given)
    with TestClient(create_app(conf)) as client:
        yield client


def put_failed(database: Database, name: str, error: type) -> int:
    job_id, worker = entries.put_job(database, name).id, entries.put_worker(database)
    entries.claim(database, job_id, worker)
    with database.transaction() as session:
        attempts.fail(session, job_id, worker, error("It went wrong."))
    return job_id


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/admin/queues"),
        ("POST", "/v1/admin/queues/encode/pause"),
        ("POST", "/v1/admin/queues/encode/resume"),
        ("GET", "/v1/admin/workers"),
        ("POST", "/v1/admin/jobs/retry"),
        ("POST", "/v1/admin/jobs/1/retry"),
    ],
)
def test_nothing_is_done_without_the_key(api: TestClient, method: str, path: str):
    response = api.request(method, path, json={"code": "x"} if path.endswith("jobs/retry") else None)
    assert (response.status_code, documented_problem(response)["code"]) == (401, "admin_key_required")


def test_a_queue_is_paused_drained_and_resumed(api: TestClient, database: Database):
    job_id, worker = entries.put_job(database).id, entries.put_worker(database)
    entries.claim(database, job_id, worker)

    paused = api.post("/v1/admin/queues/encode/pause", headers=ADMIN).json()
    with database.transaction() as session:
        attempts.finish(session, job_id, worker, "sha")
    drained = api.get("/v1/admin/queues", headers=ADMIN).json()["queues"][0]
    resumed = api.post("/v1/admin/queues/encode/resume", headers=ADMIN).json()

    found = [(each["paused"], each["drained"], each["running"]) for each in (paused, drained, resumed)]
    assert found == [(True, False, 1), (True, True, 0), (False, False, 0)]


def test_workers_are_listed_with_what_they_have_and_do(api: TestClient, database: Database):
    job_id, worker = entries.put_job(database).id, entries.put_worker(database)
    entries.claim(database, job_id, worker)
    base = {"repo_id": "base/one", "bytes": 10}
    status = {"activity": "encoding 1 on base/one", "bases": [base], "memory": {"resident": 20}}
    with database.transaction() as session:
        workers.beat(session, worker, status)

    [found] = api.get("/v1/admin/workers", headers=ADMIN).json()["workers"]

    assert {name: found[name] for name in ("device", *status)} == {"device": "cpu", **status}
    assert [job["id"] for job in found["jobs"]] == [job_id]


def test_jobs_are_retried_by_their_error(api: TestClient, database: Database):
    put_failed(database, "a/away", HubUnavailable)
    response = api.post("/v1/admin/jobs/retry", json={"code": "hub_unavailable"}, headers=ADMIN)
    assert (response.status_code, response.json()) == (202, {"retried": 1})


def test_an_admin_lets_a_quarantined_job_run_again(api: TestClient, database: Database):
    job_id = put_failed(database, "a/deadly", Quarantined)
    response = api.post(f"/v1/admin/jobs/{job_id}/retry", headers=ADMIN)
    assert (response.status_code, response.json()["state"]) == (202, "queued")


def test_a_key_that_has_too_many_jobs_is_told_when_to_come_back(api: TestClient):
    def submit(name: str, key: str | None) -> object:
        return api.post("/v1/models", json={"repo_id": f"a/{name}"}, headers={"X-API-Key": key} if key else {})

    assert [submit(name, MINE).status_code for name in ("one", "two")] == [202, 202]
    refused = submit("three", MINE)
    assert (refused.status_code, documented_problem(refused)["code"]) == (429, "too_many_jobs")
    assert int(refused.headers["Retry-After"]) > 0
    assert submit("three", None).status_code == 202
