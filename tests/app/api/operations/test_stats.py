from __future__ import annotations

from fastapi.testclient import TestClient

from catalog.database import Database
from catalog.jobs.repository import workers
from tests.support import catalog as entries
from tests.support.keys import AS_ADMIN
from tests.support.problem_documents import documented_problem


def test_empty_catalog_counts_zero_in_every_state(api: TestClient):
    stats = api.get("/v1/stats").json()
    assert set(stats["models"]) == {"pending", "indexed", "no_shift", "failed", "removed"}
    assert set(stats["jobs"]) == {"queued", "fetching", "encoding", "done", "failed", "cancelled"}
    assert not any([*stats["models"].values(), *stats["jobs"].values()])
    assert stats["workers"] == []


def test_models_and_jobs_are_counted_by_state(api: TestClient, database: Database):
    entries.put(database, "a/b", [1, 0])
    entries.put_job(database, "a/c")
    stats = api.get("/v1/stats").json()
    assert (stats["models"]["indexed"], stats["models"]["pending"], stats["jobs"]["queued"]) == (1, 1, 1)


def test_only_live_workers_are_listed(api: TestClient, database: Database):
    alive, stopped = entries.put_worker(database), entries.put_worker(database)
    with database.transaction() as session:
        workers.mark_stopped(session, stopped)
    [worker] = api.get("/v1/stats", headers=AS_ADMIN).json()["workers"]
    assert (worker["id"], worker["host"], worker["device"]) == (alive, "here", "cpu")


def test_query_parameters_are_refused(api: TestClient):
    assert documented_problem(api.get("/v1/stats?state=done"))["code"] == "invalid_input"
