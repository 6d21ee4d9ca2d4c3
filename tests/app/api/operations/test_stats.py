from __future__ import annotations

from fastapi.testclient import TestClient

from catalog.database import Database
from catalog.jobs.repository import workers
from tests.support import catalog as entries
from tests.support.problem_documents import documented_problem


def test_an_empty_catalog_has_nothing_of_anything(api: TestClient):
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


def test_workers_are_shown_while_they_live(api: TestClient, database: Database):
    alive, stopped = entries.put_worker(database), entries.put_worker(database)
    with database.transaction() as session:
        workers.stop(session, stopped)
    [worker] = api.get("/v1/stats").json()["workers"]
    assert (worker["id"], worker["host"], worker["device"]) == (alive, "here", "cpu")


def test_no_parameter_is_taken(api: TestClient):
    assert documented_problem(api.get("/v1/stats?state=done"))["code"] == "invalid_input"
