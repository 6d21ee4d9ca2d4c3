from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import redis

from app.deployment.embedded import EmbeddedServers
from benchmarks.filling import SPACE, fill
from catalog.database import Database
from catalog.index import repository as snapshots
from catalog.index.schedule import BuildPolicy, enqueue_due, list_due
from catalog.queue import INDEX_BUILD, MAINTENANCE_QUEUE
from catalog.tables import IndexSnapshot

DIMENSION, COUNT = 8, 100
POLICY = BuildPolicy(exact_bytes=4 * DIMENSION * (COUNT - 1), rows=10, share=0.2)


@pytest.fixture
def space(database: Database) -> Database:
    """Space 1 with a hundred vectors, one more than the limit for exact search."""
    fill(database, COUNT, DIMENSION, [np.eye(COUNT, DIMENSION, dtype=np.float32)])
    return database


def add(database: Database, count: int) -> None:
    fill(database, count, DIMENSION, [np.eye(count, DIMENSION, dtype=np.float32)], prefix=f"add-{count}")


def publish(database: Database, folder: Path, generation: int = 1, vectors: int = COUNT) -> None:
    path = f"{SPACE.key}/{generation}"
    (folder / path).mkdir(parents=True)
    with database.transaction() as session:
        covered = session.connection().exec_driver_sql("SELECT max(seq) FROM vectors").scalar_one()
        row = {"covered_seq": covered, "vectors": vectors, "kind": "ivf_sq8", "path": path, "sha256": "0" * 64}
        snapshots.publish(session, IndexSnapshot(space_id=1, generation=generation, recall=1.0, **row))


def due_now(database: Database, folder: Path, policy: BuildPolicy = POLICY) -> list[int]:
    with database.transaction() as session:
        return list_due(session, policy, folder)


def test_space_above_the_size_limit_is_due(space: Database, tmp_path: Path):
    assert due_now(space, tmp_path) == [1]


def test_space_below_the_size_limit_is_not_due(space: Database, tmp_path: Path):
    assert due_now(space, tmp_path, BuildPolicy(exact_bytes=4 * DIMENSION * COUNT)) == []


@pytest.mark.parametrize(
    ("vectors", "changes", "expected"), [(20, 9, []), (20, 10, [1]), (100, 19, []), (100, 20, [1])]
)
def test_index_is_due_after_enough_changes(
    space: Database, tmp_path: Path, vectors: int, changes: int, expected: list[int]
):
    publish(space, tmp_path, vectors=vectors)
    add(space, changes)
    assert due_now(space, tmp_path) == expected


def test_index_with_a_broken_newest_segment_is_due(space: Database, tmp_path: Path):
    publish(space, tmp_path, 1)
    publish(space, tmp_path, 2)
    assert due_now(space, tmp_path) == []
    with space.transaction() as session:
        snapshots.mark_broken(session, 1, 2, "a test says so")
    assert due_now(space, tmp_path) == [1]


def test_index_with_missing_files_is_due(space: Database, tmp_path: Path):
    publish(space, tmp_path)
    (tmp_path / SPACE.key / "1").rmdir()
    assert due_now(space, tmp_path) == [1]


def test_postponed_build_is_not_due(space: Database, tmp_path: Path):
    with space.transaction() as session:
        snapshots.postpone(session, 1, 60, "disk_full: a test says so")
        assert snapshots.build_errors(session, [1]) == {1: "disk_full: a test says so"}
    assert due_now(space, tmp_path) == []
    with space.transaction() as session:
        snapshots.postpone(session, 1, 0)
        assert snapshots.build_errors(session, [1]) == {}
    assert due_now(space, tmp_path) == [1]


def test_due_build_is_enqueued_with_an_expiry(space: Database, tmp_path: Path, servers: EmbeddedServers):
    assert enqueue_due(space, POLICY, tmp_path) == [1]
    with redis.Redis.from_url(servers.redis_url) as broker:
        [message] = broker.lrange(MAINTENANCE_QUEUE, 0, -1)
    headers = json.loads(message)["headers"]
    assert (headers["task"], headers["argsrepr"]) == (INDEX_BUILD, "[1]")
    assert headers["expires"]
