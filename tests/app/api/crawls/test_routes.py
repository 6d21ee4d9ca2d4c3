from __future__ import annotations

from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import func, update

from catalog.database import Database
from catalog.hub_sync.repository import crawls
from catalog.tables import CrawlState, Job
from tests.support import catalog as entries
from tests.support.problem_documents import documented_problem

CRAWLS = "/v1/admin/crawls"

SESAME = "open sesame for admins"


@pytest.fixture
def admin(api: TestClient) -> TestClient:
    """An API that asks for a key, and a client that has it."""
    api.app.state.settings = api.app.state.settings.model_copy(update={"admin_api_key": SecretStr(SESAME)})
    api.headers["X-Admin-Key"] = SESAME
    return api


def start(api: TestClient, **body: object) -> dict:
    response = api.post(CRAWLS, json=body)
    assert response.status_code == 202, response.text
    return response.json()


def test_a_crawl_is_a_row_that_waits_for_a_worker(admin: TestClient):
    crawl = start(admin, base="org/base", limit=10, min_downloads=5, every_hours=6)

    assert (crawl["state"], crawl["limit"], crawl["min_downloads"], crawl["every_hours"]) == ("queued", 10, 5, 6)
    assert crawl["source"] == {"base": "org/base", "relations": ["adapter", "finetune"]}
    shown = admin.get(f"{CRAWLS}/{crawl['id']}").json()
    assert shown == crawl | {"estimate": {"bytes": None, "hours": 0, "measured": False, "workers": 1}}


def test_ids_are_counted_not_shown(admin: TestClient):
    assert start(admin, ids=["a/b", "c/d", "a/b"])["ids"] == 2


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_input"),
        ({"base": "a/b", "owner": "c"}, "invalid_input"),
        ({"base": "no slash"}, "invalid_repo_id"),
        ({"ids": ["a/b", "../x"]}, "invalid_repo_id"),
        ({"ids": []}, "invalid_input"),
        ({"owner": "a\0"}, "invalid_input"),
        ({"collection": "../../x"}, "invalid_input"),
        ({"owner": "a", "limit": 0}, "invalid_input"),
        ({"owner": "a", "dry_run": True, "every_hours": 1}, "invalid_input"),
        ({"base": "a/b", "relations": ["merge"]}, "invalid_input"),
    ],
)
def test_what_names_no_source_is_refused(admin: TestClient, body: dict, code: str):
    assert documented_problem(admin.post(CRAWLS, json=body))["code"] == code


def test_crawls_are_listed_the_newest_first_page_by_page(admin: TestClient):
    made = [start(admin, owner=f"o{number}")["id"] for number in range(3)]

    first = admin.get(CRAWLS, params={"limit": 2}).json()
    second = admin.get(CRAWLS, params={"limit": 2, "cursor": first["next_cursor"]}).json()

    assert [each["id"] for page in (first, second) for each in page["crawls"]] == made[::-1]


def test_pause_resume_and_cancel(admin: TestClient):
    crawl = start(admin, owner="x")

    states = [admin.post(f"{CRAWLS}/{crawl['id']}/{verb}").json()["state"] for verb in ("pause", "resume", "cancel")]

    assert states == ["paused", "queued", "cancelled"]


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_what_is_over_cannot_be_moved(admin: TestClient, verb: str):
    crawl = start(admin, owner="x")
    admin.post(f"{CRAWLS}/{crawl['id']}/cancel")

    assert documented_problem(admin.post(f"{CRAWLS}/{crawl['id']}/{verb}"))["code"] == "crawl_over"


def test_a_crawl_that_is_done_cannot_be_cancelled(admin: TestClient, database: Database):
    crawl = start(admin, owner="x")
    with database.transaction() as session:
        crawls.get(session, crawl["id"]).state = CrawlState.DONE

    assert documented_problem(admin.post(f"{CRAWLS}/{crawl['id']}/cancel"))["code"] == "crawl_over"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/cancel")]
)
def test_an_unknown_crawl_is_not_found(admin: TestClient, method: str, path: str):
    assert documented_problem(admin.request(method, f"{CRAWLS}/7{path}"))["code"] == "crawl_not_found"


@pytest.mark.parametrize(
    ("method", "path"), [("POST", ""), ("GET", ""), ("GET", "/1"), ("POST", "/1/pause"), ("POST", "/1/cancel")]
)
def test_crawls_are_for_admins(admin: TestClient, method: str, path: str):
    admin.headers["X-Admin-Key"] = "wrong"
    response = admin.request(method, f"{CRAWLS}{path}", json={"owner": "x"} if (method, path) == ("POST", "") else None)
    assert documented_problem(response)["code"] == "admin_key_required"


def test_the_estimate_rests_on_the_jobs_that_were_done(admin: TestClient, database: Database):
    crawl = start(admin, owner="x", dry_run=True)
    worker = entries.put_worker(database)
    with database.transaction() as session:
        row = crawls.get(session, crawl["id"])
        row.queued, row.sized, row.size = 7_200, 72, 720
    done(database, worker, jobs=4, seconds=2)  # two a second

    estimate = admin.get(f"{CRAWLS}/{crawl['id']}").json()["estimate"]

    assert estimate == {"bytes": 72_000, "hours": pytest.approx(1), "measured": True, "workers": 1}


def done(database: Database, worker: int, *, jobs: int, seconds: int) -> None:
    """One batch, that took so long."""
    ids = [entries.put_job(database, f"done/m{number}").id for number in range(jobs)]
    ended = {"state": "done", "worker_id": worker, "started_at": func.now()}
    with database.transaction() as session:
        statement = update(Job).where(Job.id.in_(ids))
        session.execute(statement.values(**ended, finished_at=func.now() + timedelta(seconds=seconds)))
