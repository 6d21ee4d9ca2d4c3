"""Internals, which only admins see, as anonymous and as admin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.api.internals import UNEXPECTED, message_for, without_paths
from catalog.auth.viewer import ADMIN, PUBLIC
from catalog.clusters import service as cluster_service
from catalog.clusters.parameters import Parameters
from catalog.database import Database, ErrorRecord
from catalog.errors import CatalogError, FolderUnreadable
from catalog.index import repository as snapshots
from catalog.jobs.repository import attempts, workers
from catalog.jobs.submissions import submit_folder
from catalog.tables import ClusterRun, IndexSnapshot
from tests.support import catalog as entries
from tests.support.keys import AS_ADMIN

SECRETS = ("gpu-7", "4711", "/secret/place", "SELECT")  # a host, a process id, a path, SQL
UNEXPECTED_REPR = "ProgrammingError('SELECT secret FROM models at /secret/place/x on gpu-7')"


@pytest.fixture
def api(api: TestClient) -> TestClient:
    """The API, whose client sends no key by itself."""
    del api.headers["X-API-Key"]
    return api


def put_worker(database: Database, *, hub_token_invalid: bool = False) -> int:
    with database.transaction() as session:
        worker_id = workers.register(session, "gpu-7", 4711, "cpu")
        workers.record_heartbeat(session, worker_id, {"hub_token_invalid": hub_token_invalid})
        return worker_id


def put_failed_job(database: Database, error: CatalogError, folder: Path | None = None) -> int:
    job = submit_folder(database, folder, "law") if folder else entries.put_job(database, "a/b")
    worker_id = put_worker(database)
    entries.claim(database, job.id, worker_id)
    with database.transaction() as session:
        attempts.fail(session, job.id, worker_id, error)
    return job.id


def leaks(response: Any) -> list[str]:
    """The secrets in an answer."""
    return [secret for secret in SECRETS if secret in response.text]


def test_host_and_process_id_of_workers_are_shown_to_admins_alone(api: TestClient, database: Database):
    put_worker(database)
    public, admin = (api.get("/v1/stats", headers=headers).json()["workers"] for headers in ({}, AS_ADMIN))
    assert [(worker["host"], worker["pid"], worker["device"]) for worker in public] == [(None, None, "cpu")]
    assert [(worker["host"], worker["pid"]) for worker in admin] == [("gpu-7", 4711)]


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/{job}", "/v1/jobs/{job}/events"])
def test_details_of_unexpected_errors_are_shown_to_admins_alone(api: TestClient, database: Database, path: str):
    path = path.format(job=put_failed_job(database, CatalogError(UNEXPECTED_REPR)))
    public, admin = api.get(path), api.get(path, headers=AS_ADMIN)
    assert leaks(public) == []
    assert UNEXPECTED in public.text
    assert {"SELECT", "/secret/place"} <= set(leaks(admin))


def test_history_names_workers_to_admins_alone(api: TestClient, database: Database):
    job_id = put_failed_job(database, CatalogError(UNEXPECTED_REPR))
    [public] = api.get(f"/v1/jobs/{job_id}").json()["history"]
    [admin] = api.get(f"/v1/jobs/{job_id}", headers=AS_ADMIN).json()["history"]
    assert (public["worker"], public["message"], public["outcome"]) == (None, UNEXPECTED, "failed")
    assert (admin["worker"], admin["message"]) == ("gpu-7:4711", UNEXPECTED_REPR)


def test_folder_of_a_model_is_shown_to_admins_alone(api: TestClient, database: Database, tmp_path: Path):
    folder = tmp_path / "my models" / "law"
    folder.mkdir(parents=True)
    job_id = put_failed_job(database, FolderUnreadable(f"{folder} is not a folder that this worker can read."), folder)
    public, admin = (api.get(f"/v1/jobs/{job_id}", headers=headers) for headers in ({}, AS_ADMIN))
    assert public.json()["error"] == {
        "code": "folder_unreadable",
        "message": "its folder is not a folder that this worker can read.",
    }
    assert str(tmp_path) not in public.text
    assert str(folder) in admin.json()["error"]["message"]


def test_unexpected_errors_of_cluster_runs_are_shown_to_admins_alone(api: TestClient, database: Database):
    entries.put(database, "a/b", [1, 0])
    run, _ = cluster_service.request_run(database, Parameters("kmeans", clusters=1))
    with database.transaction() as session:
        row = session.get_one(ClusterRun, run.id)
        row.state = "failed"
        row.error_code, row.error_message = "internal_error", UNEXPECTED_REPR
    for path in ("/v1/clusters/runs", f"/v1/clusters/runs/{run.id}"):
        public, admin = api.get(path), api.get(path, headers=AS_ADMIN)
        assert leaks(public) == []
        assert UNEXPECTED in public.text
        assert UNEXPECTED_REPR in admin.text


def test_problems_of_the_index_and_names_of_workers_in_readyz_are_shown_to_admins_alone(
    api: TestClient, database: Database
):
    put_worker(database, hub_token_invalid=True)
    entries.put(database, "a/b", [1, 0])
    with database.transaction() as session:
        row = {"covered_seq": 1, "vectors": 2, "kind": "ivf_sq8", "path": "gone/1", "sha256": "0" * 64, "recall": 1}
        snapshots.publish(session, IndexSnapshot(space_id=1, generation=1, **row))
        snapshots.postpone(session, 1, 60, str(ErrorRecord("internal_error", UNEXPECTED_REPR)))
    api.get("/v1/models/a/b/neighbors")  # loads the space
    api.app.state.services.readiness.check()

    public, admin = api.get("/readyz"), api.get("/readyz", headers=AS_ADMIN)

    assert leaks(public) == []
    checks = public.json()["checks"]
    assert checks["index"]["detail"] == "The index is loaded, but: it has 2 problems, which admins see."
    assert "HF_TOKEN of 1 worker(s)" in checks["hub_token"]["detail"]
    assert leaks(admin) == list(SECRETS)


def test_metrics_are_shown_to_admins_alone(api: TestClient):
    assert api.get("/metrics").status_code == 401
    assert "deltadex_index_loaded 1.0" in api.get("/metrics", headers=AS_ADMIN).text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("config.json in /home/me/models/x is no object.", "config.json in x is no object."),
        ("[Errno 2] No such file: '/data/downloads/a.json'", "[Errno 2] No such file: 'a.json'"),
        ("/data/downloads/ is full", "a folder is full"),
        ("See https://huggingface.co/owner/name/tree/main.", "See https://huggingface.co/owner/name/tree/main."),
        ("Submit it with POST /v1/models or /v1/tasks/3.", "Submit it with POST /v1/models or /v1/tasks/3."),
        ("owner/name and delta/b/c have 3/4 of it", "owner/name and delta/b/c have 3/4 of it"),
    ],
)
def test_absolute_paths_are_cut_to_their_last_part(text: str, expected: str):
    assert without_paths(text) == expected


def test_admins_see_every_message_unchanged():
    assert message_for(ADMIN, "internal_error", "repr /a/b/c") == "repr /a/b/c"
    assert message_for(PUBLIC, "corrupt_weights", "in /a/b/c") == "in c"
