from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from catalog.database import Database
from catalog.errors import HubUnavailable, Quarantined
from catalog.jobs.repository import attempts, workers
from catalog.settings import settings
from tests.support import catalog as entries
from tests.support.keys import AS_ADMIN, add_key
from tests.support.problem_documents import documented_problem

KEY = "an API key of a submitter"


@pytest.fixture
def api(database: Database) -> Iterator[TestClient]:
    overrides = {"feed_interval": 3600, "max_active_jobs": 2}
    conf = settings().model_copy(update=overrides)
    with TestClient(create_app(conf), "http://localhost", headers=AS_ADMIN) as client:
        yield client


def put_failed(database: Database, name: str, error: type) -> int:
    job_id, worker = entries.put_job(database, name).id, entries.put_worker(database)
    entries.claim(database, job_id, worker)
    with database.transaction() as session:
        attempts.fail(session, job_id, worker, error("It went wrong."))
    return job_id


def test_queue_is_paused_drained_and_resumed(api: TestClient, database: Database):
    job_id, worker = entries.put_job(database).id, entries.put_worker(database)
    entries.claim(database, job_id, worker)

    paused = api.post("/v1/admin/queues/encode/pause").json()
    with database.transaction() as session:
        attempts.finish(session, job_id, worker, "sha")
    drained = api.get("/v1/admin/queues").json()["queues"][0]
    resumed = api.post("/v1/admin/queues/encode/resume").json()

    states = [(queue["paused"], queue["drained"], queue["running"]) for queue in (paused, drained, resumed)]
    assert states == [(True, False, 1), (True, True, 0), (False, False, 0)]


def test_workers_are_listed_with_their_status_and_jobs(api: TestClient, database: Database):
    job_id, worker = entries.put_job(database).id, entries.put_worker(database)
    entries.claim(database, job_id, worker)
    base = {"repo_id": "base/one", "bytes": 10}
    status = {"activity": "encoding 1 on base/one", "bases": [base], "memory": {"resident": 20}}
    with database.transaction() as session:
        workers.record_heartbeat(session, worker, status)

    [listed] = api.get("/v1/admin/workers").json()["workers"]

    assert {name: listed[name] for name in ("device", *status)} == {"device": "cpu", **status}
    assert [job["id"] for job in listed["jobs"]] == [job_id]


def test_jobs_are_retried_by_error_code(api: TestClient, database: Database):
    put_failed(database, "a/away", HubUnavailable)
    response = api.post("/v1/admin/jobs/retry", json={"code": "hub_unavailable"})
    assert (response.status_code, response.json()) == (202, {"retried": 1})


def test_admin_retries_a_quarantined_job(api: TestClient, database: Database):
    job_id = put_failed(database, "a/poison", Quarantined)
    response = api.post(f"/v1/admin/jobs/{job_id}/retry")
    assert (response.status_code, response.json()["state"]) == (202, "queued")


def test_too_many_jobs_returns_429_with_retry_after(api: TestClient, database: Database):
    def submit(name: str, key: str | None) -> object:
        return api.post("/v1/models", json={"repo_id": f"a/{name}"}, headers={"X-API-Key": key} if key else {})

    add_key(database, KEY)

    assert [submit(name, KEY).status_code for name in ("one", "two")] == [202, 202]
    refused = submit("three", KEY)
    assert (refused.status_code, documented_problem(refused)["code"]) == (429, "too_many_jobs")
    assert int(refused.headers["Retry-After"]) > 0
    assert submit("three", None).status_code == 202
