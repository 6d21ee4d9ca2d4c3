from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from catalog.database import Database
from catalog.errors import CorruptWeights, Quarantined
from catalog.jobs.repository import attempts
from tests.support import catalog as entries
from tests.support.problem_documents import documented_problem


@pytest.fixture
def some(database: Database) -> list[int]:
    """Seven jobs; the second failed, the third is being fetched."""
    ids = [entries.put_job(database, f"owner/m{number}", f"base/{number}").id for number in range(7)]
    worker = entries.put_worker(database)
    for job_id in ids[1:3]:
        entries.claim(database, job_id, worker)
    with database.transaction() as session:
        attempts.fail(session, ids[1], worker, CorruptWeights("It is cut off."))
    return ids


def test_a_job_shows_why_it_failed(api: TestClient, some: list[int]):
    job = api.get(f"/v1/jobs/{some[1]}").json()
    assert (job["state"], job["attempts"]) == ("failed", 1)
    assert job["error"] == {"code": "corrupt_weights", "message": "It is cut off."}
    assert job["started_at"] <= job["finished_at"]


def test_a_running_job_shows_no_error(api: TestClient, some: list[int]):
    job = api.get(f"/v1/jobs/{some[2]}").json()
    assert (job["state"], job["error"], job["finished_at"]) == ("fetching", None, None)


@pytest.mark.parametrize("limit", [1, 3, 7, 200])
def test_the_cursor_leads_over_all_jobs_once_from_the_newest_on(api: TestClient, some: list[int], limit: int):
    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        query = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        page = api.get("/v1/jobs", params=query).json()
        seen += [job["id"] for job in page["jobs"]]
        cursor, pages = page["next_cursor"], pages + 1
    assert seen == some[::-1]


@pytest.mark.parametrize(("state", "expected"), [("queued", 5), ("failed", 1), ("fetching", 1), ("done", 0)])
def test_jobs_are_filtered_by_state(api: TestClient, some: list[int], state: str, expected: int):
    found = api.get("/v1/jobs", params={"state": state}).json()["jobs"]
    assert [job["state"] for job in found] == [state] * expected


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
def test_a_job_that_cannot_be_shown_is_said_so(api: TestClient, some: list[int], path: str, status: int, code: str):
    response = api.get(path)
    assert response.status_code == status
    assert documented_problem(response)["code"] == code


def test_a_job_is_cancelled(api: TestClient, some: list[int]):
    for job_id in (some[0], some[2]):  # queued, fetching
        response = api.post(f"/v1/jobs/{job_id}/cancel")
        assert (response.status_code, response.json()["state"]) == (200, "cancelled")
        assert api.get(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"


def test_a_failed_job_is_retried(api: TestClient, some: list[int]):
    response = api.post(f"/v1/jobs/{some[1]}/retry")
    assert (response.status_code, response.json()["state"]) == (202, "queued")


def test_a_job_shows_how_its_attempts_ended(api: TestClient, some: list[int]):
    [attempt] = api.get(f"/v1/jobs/{some[1]}").json()["history"]
    assert (attempt["attempt"], attempt["worker"], attempt["state"]) == (1, "here:1", "fetching")
    assert (attempt["outcome"], attempt["code"], attempt["beside"]) == ("failed", "corrupt_weights", 1)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/jobs/999/cancel", 404, "job_not_found"),
        ("/v1/jobs/999/retry", 404, "job_not_found"),
        ("/v1/jobs/2/cancel", 409, "job_over"),
        ("/v1/jobs/1/cancel?x=1", 422, "invalid_input"),
    ],
)
def test_what_cannot_be_done_to_a_job_is_said_so(api: TestClient, some: list[int], path: str, status: int, code: str):
    response = api.post(path)
    assert response.status_code == status
    assert documented_problem(response)["code"] == code


def test_what_is_quarantined_is_for_an_admin(api: TestClient, database: Database, some: list[int]):
    with database.transaction() as session:
        attempts.fail(session, some[2], 1, Quarantined("Workers died."))
    response = api.post(f"/v1/jobs/{some[2]}/retry")
    assert (response.status_code, documented_problem(response)["code"]) == (409, "quarantined")
