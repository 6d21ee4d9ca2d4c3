from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from catalog.database import Database
from catalog.errors import CorruptWeights
from catalog.repository import attempts
from tests.app.documented import documented_problem
from tests.catalog import entries


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
