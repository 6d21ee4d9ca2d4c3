from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from catalog.arithmetic import service as arithmetic_service
from catalog.database import Database
from catalog.maps.runner import MapRunner
from tests.support import catalog as entries
from tests.support.catalog import SPACE
from tests.support.clusters import cluster, cluster_filters, fill, vector
from tests.support.keys import AS_ADMIN
from tests.support.problem_documents import documented_problem
from tests.support.reindexes import start_reindex
from tests.support.waiting import wait_until

SPACES = "/v1/admin/spaces"
FORMER = dataclasses.replace(SPACE, encoder_version="0")


@pytest.fixture
def client(database: Database, tmp_path: Path, url: str) -> Iterator[httpx.Client]:
    """Twelve models with clusters and a map in the serving space, and one of them in a space that does not serve."""
    fill(database)
    cluster(database, tmp_path)
    MapRunner(database, tmp_path).run(1)
    entries.put(database, "owner/tiny-law-0", vector(0), space=FORMER)
    with httpx.Client(base_url=url, headers=AS_ADMIN, timeout=60) as client:
        yield client


def rows(database: Database, table: str, space_id: int) -> int:
    with database.transaction() as session:
        return session.execute(text(f"SELECT count(*) FROM {table} WHERE space_id = {space_id}")).scalar_one()


def test_all_spaces_are_listed(client: httpx.Client):
    listed = client.get(SPACES).json()["spaces"]
    assert [(row["key"], row["vectors"], row["serving"]) for row in listed] == [
        (FORMER.key, 1, False),
        (SPACE.key, 12, True),
    ]


def test_space_that_does_not_serve_is_dropped_by_the_first_digits_of_its_key(client: httpx.Client):
    dropped = client.delete(f"{SPACES}/{FORMER.key[:12]}").json()

    assert (dropped["key"], dropped["vectors"], dropped["models_without_vectors"]) == (FORMER.key, 1, 0)
    assert [row["key"] for row in client.get(SPACES).json()["spaces"]] == [SPACE.key]
    assert client.get("/v1/models/owner/tiny-law-0/neighbors").status_code == 200


def test_serving_space_is_dropped_only_with_force(client: httpx.Client, database: Database):
    assert documented_problem(client.delete(f"{SPACES}/{SPACE.key}"))["code"] == "space_serving"
    assert rows(database, "vectors", 1) == 12
    arithmetic_service.store_vector(database, "mine", vector(0).tolist(), space_key=SPACE.key, note=None)

    dropped = client.delete(f"{SPACES}/{SPACE.key}", params={"force": True}).json()

    assert (dropped["vectors"], dropped["stored_vectors"], dropped["models_without_vectors"]) == (12, 1, 11)
    for table in ("vectors", "maps", "cluster_runs", "geometries", "stored_vectors", "index_snapshots"):
        assert rows(database, table, 1) == 0
    assert set(cluster_filters(database).values()) == {None}
    assert documented_problem(client.get("/v1/map", params={"space": SPACE.key}))["code"] == "space_not_found"
    assert client.get("/v1/models/owner/tiny-law-1").json()["state"] == "pending"


def test_vectors_are_deleted_in_pages(client: httpx.Client, database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("catalog.removals.spaces.VECTORS_PER_TRANSACTION", 5)
    assert client.delete(f"{SPACES}/{SPACE.key}", params={"force": True}).json()["vectors"] == 12
    assert rows(database, "vectors", 1) == 0


def test_index_of_a_dropped_space_leaves_memory(client: httpx.Client):
    wait_until(lambda: client.get("/v1/models/owner/tiny-law-1/neighbors").status_code == 200, "the index is loaded")
    assert 'deltadex_index_vectors{space_id="1"}' in client.get("/metrics").text

    client.delete(f"{SPACES}/{SPACE.key}", params={"force": True})

    wait_until(lambda: 'space_id="1"' not in client.get("/metrics").text, "the index is evicted")


def test_space_of_an_active_reindex_is_not_dropped(client: httpx.Client, database: Database):
    reindex_id = start_reindex(database)
    measured = dataclasses.replace(SPACE, edition=reindex_id)
    entries.put(database, "owner/tiny-law-0", vector(0), space=measured)

    response = client.delete(f"{SPACES}/{measured.key}", params={"force": True})

    assert documented_problem(response)["code"] == "reindex_active"


def test_unknown_and_ambiguous_keys_are_not_found(client: httpx.Client, database: Database):
    assert documented_problem(client.delete(f"{SPACES}/{'0' * 64}"))["code"] == "space_not_found"
    with database.transaction() as session:
        session.execute(text("UPDATE spaces SET key = '12345678' || id"))
    assert documented_problem(client.delete(f"{SPACES}/12345678"))["code"] == "space_not_found"
