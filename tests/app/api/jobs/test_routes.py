from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from catalog.database import Database
from catalog.errors import CorruptWeights, Quarantined
from catalog.jobs.repository import attempts
from tests.support import catalog as entries
from tests.support.keys import AS_ADMIN
from tests.support.problem_documents import documented_problem
from tests.support.quarantine import put_quarantine


@pytest.fixture
def job_ids(database: Database) -> list[int]:
    """The ids of seven jobs, of which the second failed and the third is being fetched."""
    ids = [entries.put_job(database, f"owner/m{number}", f"base/{number}").id for number in range(7)]
    worker = entries.put_worker(database)
    for job_id in ids[1:3]:
        entries.claim(database, job_id, worker)
    with database.transaction() as session:
        attempts.fail(session, ids[1], worker, CorruptWeights("It is cut off."))
    return ids


def test_failed_job_shows_its_error(api: TestClient, job_ids: list[int]):
    job = api.get(f"/v1/jobs/{job_ids[1]}").json()
    assert (job["state"], job["attempts"]) == ("failed", 1)
    assert job["error"] == {"code": "corrupt_weights", "message": "It is cut off."}
    assert job["started_at"] <= job["finished_at"]


def test_running_job_shows_no_error(api: TestClient, job_ids: list[int]):
    job = api.get(f"/v1/jobs/{job_ids[2]}").json()
    assert (job["state"], job["error"], job["finished_at"]) == ("fetching", None, None)


@pytest.mark.parametrize("limit", [1, 3, 7, 200])
def test_cursor_pages_through_all_jobs_newest_first(api: TestClient, job_ids: list[int], limit: int):
    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        query = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        page = api.get("/v1/jobs", params=query).json()
        seen += [job["id"] for job in page["jobs"]]
        cursor, pages = page["next_cursor"], pages + 1
    assert seen == job_ids[::-1]


@pytest.mark.parametrize(("state", "expected"), [("queued", 5), ("failed", 1), ("fetching", 1), ("done", 0)])
def test_jobs_are_filtered_by_state(api: TestClient, job_ids: list[int], state: str, expected: int):
    jobs = api.get("/v1/jobs", params={"state": state}).json()["jobs"]
    assert [job["state"] for job in jobs] == [state] * expected


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/jobs/999", 404, "job_not_found"),
        ("/v1/jobs/0", 422, "invalid_input"),
        ("/v1/jobs/x", 422, "invalid_input"),
        (f"/v1/jobs/{2**63}", 422, "invalid_input"),
        ("/v1/jobs/1?x=1", 422, "invalid_input"),
        ("/v1/jobs?cursor=x", 422, "invalid_cursor"),
        ("/v1/jobs?state=lost", 422, "invalid_input"),
        ("/v1/jobs?limit=1000", 422, "invalid_input"),
        ("/v1/jobs?owner=a", 422, "invalid_input"),
    ],
)
def test_invalid_job_requests_return_their_error(
    api: TestClient, job_ids: list[int], path: str, status: int, code: str
):
    response = api.get(path)
    assert response.status_code == status
    assert documented_problem(response)["code"] == code


def test_job_is_cancelled(api: TestClient, job_ids: list[int]):
    for job_id in (job_ids[0], job_ids[2]):  # queued, fetching
        response = api.post(f"/v1/jobs/{job_id}/cancel")
        assert (response.status_code, response.json()["state"]) == (200, "cancelled")
        assert api.get(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"


def test_failed_job_is_retried(api: TestClient, job_ids: list[int]):
    response = api.post(f"/v1/jobs/{job_ids[1]}/retry")
    assert (response.status_code, response.json()["state"]) == (202, "queued")


def test_job_shows_the_history_of_its_attempts(api: TestClient, job_ids: list[int]):
    [attempt] = api.get(f"/v1/jobs/{job_ids[1]}", headers=AS_ADMIN).json()["history"]
    assert (attempt["attempt"], attempt["worker"], attempt["state"]) == (1, "here:1", "fetching")
    assert (attempt["outcome"], attempt["code"], attempt["concurrent_jobs"]) == ("failed", "corrupt_weights", 1)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/jobs/999/cancel", 404, "job_not_found"),
        ("/v1/jobs/999/retry", 404, "job_not_found"),
        ("/v1/jobs/2/cancel", 409, "job_finished"),
        ("/v1/jobs/1/cancel?x=1", 422, "invalid_input"),
    ],
)
def test_invalid_actions_on_jobs_return_their_error(
    api: TestClient, job_ids: list[int], path: str, status: int, code: str
):
    response = api.post(path)
    assert response.status_code == status
    assert documented_problem(response)["code"] == code


def test_retry_of_a_quarantined_job_returns_409(api: TestClient, database: Database, job_ids: list[int]):
    with database.transaction() as session:
        attempts.fail(session, job_ids[2], 1, Quarantined("Workers died."))
        put_quarantine(session, "owner/m2")
    response = api.post(f"/v1/jobs/{job_ids[2]}/retry")
    assert (response.status_code, documented_problem(response)["code"]) == (409, "quarantined")
