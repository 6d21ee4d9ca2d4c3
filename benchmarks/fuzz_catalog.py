"""A small catalog for `benchmarks.fuzz`: something of everything that the routes of the API read and change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from app.api import pagination
from catalog.database import Database
from catalog.maps.runner import MapRunner
from catalog.queue import ENCODE_QUEUE, MAINTENANCE_QUEUE
from catalog.tables import Role
from tests.support import catalog as entries
from tests.support import clusters
from tests.support.keys import ADMIN_KEY, add_key
from tests.support.merge_requests import finish_merge
from tests.support.task_requests import ROWS, finish_task

MODELS = [f"owner/tiny-{topic}-{number}" for topic in clusters.TOPICS for number in range(6)]
PRIVATE = "owner/private"
SUBMITTER_KEY, READER_KEY = "the key of a submitter", "the key of a reader"
# an API key, or none, and a key that does not exist
CALLERS: Mapping[str, Mapping[str, str]] = {
    "admin": {"X-API-Key": ADMIN_KEY},
    "submitter": {"X-API-Key": SUBMITTER_KEY},
    "reader": {"Authorization": f"Bearer {READER_KEY}"},
    "none": {},
    "unknown": {"X-API-Key": "ddx_no_such_key"},
}


def create(database: Database, folder: Path) -> None:
    """Store the API keys, and models with their clusters and their map."""
    add_key(database, SUBMITTER_KEY, Role.SUBMITTER)
    add_key(database, READER_KEY, Role.READER)
    clusters.fill(database, models_per_topic=6)
    clusters.cluster(database, folder)
    MapRunner(database, folder).run(1)


def fill(database: Database, http: httpx.Client) -> dict[str, list[Any]]:
    """Store what is missing, and return values for parameters and fields of requests by their names.

    It is called again during a run, because requests delete what it stores.
    """
    for block in http.get("/v1/admin/blocks", params={"limit": 200}).json()["blocks"]:
        http.delete(f"/v1/admin/blocks/{block['id']}")
    for queue in (ENCODE_QUEUE, MAINTENANCE_QUEUE):
        http.post(f"/v1/admin/queues/{queue}/resume")
    clusters.fill(database, models_per_topic=6)
    for number, repo_id in enumerate(MODELS):
        entries.put(database, repo_id, clusters.vector(0, number), space=entries.MEANING, no_shift=number == 5)
    entries.put_private(database, PRIVATE, clusters.vector(0))
    http.put("/v1/aliases/production", json={"repo_id": MODELS[0]})
    http.patch(f"/v1/models/{MODELS[0]}/team-tags", json={"add": ["approved"]})
    http.post("/v1/vectors", json={"name": "v0", "vector": [1.0] * clusters.DIMENSION, "space": entries.SPACE.key})
    listed = http.get("/v1/clusters").json()
    runs = [listed.get("run", 1), *_create(http, "/v1/admin/clusters/runs", {})]
    names = [repo_id.split("/")[1] for repo_id in (*MODELS, PRIVATE)]
    return {
        "job_id": [entries.put_job(database, f"queued/j{number}", entries.BASE).id for number in range(6)],
        "task_id": _tasks(database, http),
        "merge_id": _merges(database, http),
        "selection_id": _create(http, "/v1/selections", {"examples": ROWS, "base": entries.BASE}),
        "crawl_id": _create(http, "/v1/admin/crawls", {"owner": "owner"}),
        "block_id": _create(http, "/v1/admin/blocks", {"owner": "blocked"}),
        "reindex_id": _create(http, "/v1/admin/reindexes", {"all": True}),
        "run_id": runs,
        "other_id": runs,
        "run": runs,
        "cluster_id": [cluster["id"] for cluster in listed.get("clusters", [])] or [1],
        "cursor": [pagination.encode(4)],
        "owner": ["owner"],
        "name": [*names, "v0"],
        "repo_id": [*MODELS, PRIVATE, "alias/production"],
        "base": [entries.BASE],
        "space": [entries.SPACE.key, entries.MEANING.key, "meaning"],
        "alias": ["production"],
        "models": [MODELS[:2], MODELS[3:6]],
        "repo_ids": [MODELS[:5]],
        "expression": [f"{MODELS[0]} - {MODELS[1]}", f"v0 + 0.5 * {MODELS[2]}"],
        "vector": [[0.5] * clusters.DIMENSION],
    }


def _tasks(database: Database, http: httpx.Client) -> list[int]:
    """A task that waits and one that is done."""
    response = http.post("/v1/tasks", json={"examples": ROWS, "base": entries.BASE})
    if response.status_code == 202:
        finish_task(database, response.json(), [[1.0] * clusters.DIMENSION] * 5)
    return [response.json().get("id", 1), *_create(http, "/v1/tasks", {"examples": ROWS, "base": entries.BASE})]


def _merges(database: Database, http: httpx.Client) -> list[int]:
    """A merge that waits and one that is done."""
    response = http.post("/v1/merges", json={"models": MODELS[:2]})
    if response.status_code == 202:
        finish_merge(database, response.json(), [1.0] * clusters.DIMENSION)
    return [response.json().get("id", 1), *_create(http, "/v1/merges", {"models": MODELS[2:4]})]


def _create(http: httpx.Client, path: str, body: Mapping[str, Any]) -> list[int]:
    """The id of what a request creates; 1 if it cannot now."""
    response = http.post(path, json=body)
    return [response.json().get("id", 1)]
