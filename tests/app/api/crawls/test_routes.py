from __future__ import annotations

from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, update

from catalog.database import Database
from catalog.hub_sync.repository import crawls
from catalog.tables import CrawlState, Job
from tests.support import catalog as entries
from tests.support.problem_documents import documented_problem

CRAWLS = "/v1/admin/crawls"


def create_crawl(api: TestClient, **body: object) -> dict:
    response = api.post(CRAWLS, json=body)
    assert response.status_code == 202, response.text
    return response.json()


def test_new_crawl_is_queued(api: TestClient):
    crawl = create_crawl(api, base="org/base", limit=10, min_downloads=5, every_hours=6)

    assert (crawl["state"], crawl["limit"], crawl["min_downloads"], crawl["every_hours"]) == ("queued", 10, 5, 6)
    assert crawl["source"] == {"base": "org/base", "relations": ["adapter", "finetune"]}
    shown = api.get(f"{CRAWLS}/{crawl['id']}").json()
    assert shown == crawl | {"estimate": {"bytes": None, "hours": 0, "measured": False, "workers": 1}}


def test_ids_are_counted_not_returned(api: TestClient):
    assert create_crawl(api, ids=["a/b", "c/d", "a/b"])["ids"] == 2


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
def test_invalid_crawl_is_rejected(api: TestClient, body: dict, code: str):
    assert documented_problem(api.post(CRAWLS, json=body))["code"] == code


def test_crawls_are_listed_newest_first_in_pages(api: TestClient):
    crawl_ids = [create_crawl(api, owner=f"o{number}")["id"] for number in range(3)]

    first = api.get(CRAWLS, params={"limit": 2}).json()
    second = api.get(CRAWLS, params={"limit": 2, "cursor": first["next_cursor"]}).json()

    assert [crawl["id"] for page in (first, second) for crawl in page["crawls"]] == crawl_ids[::-1]


def test_pause_resume_and_cancel(api: TestClient):
    crawl = create_crawl(api, owner="x")

    states = [api.post(f"{CRAWLS}/{crawl['id']}/{action}").json()["state"] for action in ("pause", "resume", "cancel")]

    assert states == ["paused", "queued", "cancelled"]


@pytest.mark.parametrize("action", ["pause", "resume"])
def test_cancelled_crawl_cannot_be_paused_or_resumed(api: TestClient, action: str):
    crawl = create_crawl(api, owner="x")
    api.post(f"{CRAWLS}/{crawl['id']}/cancel")

    assert documented_problem(api.post(f"{CRAWLS}/{crawl['id']}/{action}"))["code"] == "crawl_finished"


def test_finished_crawl_cannot_be_cancelled(api: TestClient, database: Database):
    crawl = create_crawl(api, owner="x")
    with database.transaction() as session:
        crawls.get(session, crawl["id"]).state = CrawlState.DONE

    assert documented_problem(api.post(f"{CRAWLS}/{crawl['id']}/cancel"))["code"] == "crawl_finished"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/cancel")]
)
def test_unknown_crawl_returns_404(api: TestClient, method: str, path: str):
    assert documented_problem(api.request(method, f"{CRAWLS}/7{path}"))["code"] == "crawl_not_found"


def test_estimate_uses_the_pace_of_finished_jobs(api: TestClient, database: Database):
    crawl = create_crawl(api, owner="x", dry_run=True)
    worker = entries.put_worker(database)
    with database.transaction() as session:
        row = crawls.get(session, crawl["id"])
        row.queued, row.sized, row.size = 7_200, 72, 720
    finish_jobs(database, worker, jobs=4, seconds=2)  # two per second

    estimate = api.get(f"{CRAWLS}/{crawl['id']}").json()["estimate"]

    assert estimate == {"bytes": 72_000, "hours": pytest.approx(1), "measured": True, "workers": 1}


def finish_jobs(database: Database, worker: int, *, jobs: int, seconds: int) -> None:
    """Finish jobs of one batch in this time."""
    ids = [entries.put_job(database, f"done/m{number}").id for number in range(jobs)]
    values = {"state": "done", "worker_id": worker, "started_at": func.now()}
    with database.transaction() as session:
        statement = update(Job).where(Job.id.in_(ids))
        session.execute(statement.values(**values, finished_at=func.now() + timedelta(seconds=seconds)))
