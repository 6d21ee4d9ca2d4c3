"""Builds of main segments, and how they fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from sqlalchemy import insert, select

from benchmarks.filling import SPACE, fill
from catalog.database import Database
from catalog.errors import DiskFull
from catalog.index import repository as snapshots
from catalog.index import training
from catalog.index.builder import IndexBuilder, as_disk_full
from catalog.index.follower import IndexFollower
from catalog.index.loader import IndexLoader
from catalog.index.mapped_segment import MappedSegment
from catalog.index.schedule import BuildPolicy
from catalog.spaces import repository as spaces
from catalog.tables import IndexSnapshot, Model, Revision, Vector, change_seq
from catalog.vectors.repository import feed
from catalog.vectors.repository import stream as vector_stream
from tests.support import catalog as entries
from tests.support.index import COUNT, DIMENSION, rebuild
from tests.support.waiting import LIMIT, wait_until

ROOT = Path(__file__).parents[3]
# a process at the lowest priority may get no time at all while tests run on all cores
NORMAL_PRIORITY = "import os; os.nice = os.sched_setscheduler = lambda *_: None"
SLOW_TRAINING = "import time; from catalog.index import training; training.train = lambda _: time.sleep(600)"


def rows(database: Database) -> list[IndexSnapshot]:
    with database.transaction() as session:
        return snapshots.list_newest(session, [1]).get(1, [])


def build_error(database: Database) -> str | None:
    with database.transaction() as session:
        return snapshots.build_errors(session, [1]).get(1)


def start_builder(builder: IndexBuilder, *, limit: int | None = None, first: str = "") -> subprocess.Popen[str]:
    """Start a builder in a process of its own, as a worker does. `limit` is the size of the largest file that it may
    write, and `first` is Python code to run before.
    """
    lines = ["import resource, runpy, sys", NORMAL_PRIORITY, first]
    if limit is not None:
        lines.append(f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))")
    lines += [
        "sys.argv = ['maintenance', 'index', '1']",
        "runpy.run_module('workers.maintenance', run_name='__main__')",
    ]
    env = {
        **os.environ,
        "DATABASE_URL": builder.database.url,
        "DELTADEX_DATA_DIR": str(builder.folder.parent),
        "DELTADEX_INDEX_EXACT_BYTES": "1000",
    }
    code = "\n".join(lines)
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)


def log_of(process: subprocess.Popen[str]) -> str:
    """Wait for the process and return its log. It is killed in any case, since it may hold the lock of the space."""
    try:
        return process.communicate(timeout=100)[1]
    finally:
        process.kill()


def opened(builder: IndexBuilder, row: IndexSnapshot) -> MappedSegment:
    return IndexLoader(builder.database, builder.folder).open(row)


def test_models_stored_during_a_build_are_in_the_feed_after_it(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with database.transaction() as session:
        names = [f"a/m{number}" for number in range(4_500)]
        session.execute(insert(Model), [{"repo_id": name, "owner": "a", "source": "hub"} for name in names])
        ids = session.scalars(select(Model.id).order_by(Model.id)).all()
    _store_vectors(database, ids[1_500:])
    count = vector_stream.count

    def count_and_store(*arguments: Any, **options: Any) -> int:
        counted = count(*arguments, **options)
        _store_vectors(database, ids[:1_500])  # older models, which a COPY in the order of ids reads first
        return counted

    monkeypatch.setattr(vector_stream, "count", count_and_store)
    IndexBuilder(database, tmp_path, BuildPolicy(1)).build(1, force=True)
    monkeypatch.undo()

    [row] = rows(database)
    assert row.vectors == 3_000
    follower = IndexFollower(database, 3600, tmp_path)
    follower.sync()
    try:
        assert len(follower.index(1, 8)) == 4_500
    finally:
        follower.stop()


def _store_vectors(database: Database, model_ids: Sequence[int]) -> None:
    """Store vectors of models that have none, as a reindex does."""
    rng = np.random.default_rng(model_ids[0])
    with database.transaction() as session:
        feed.lock_feed(session)
        space = spaces.ensure(session, SPACE, 8)
        revision = {"sha": "a", "current": True, "kind": "lora", "base_repo": "b", "base_sha": "c", "base_evidence": {}}
        statement = insert(Revision).returning(Revision.id, sort_by_parameter_order=True)
        revisions = session.scalars(statement, [{"model_id": model_id, **revision} for model_id in model_ids]).all()
        measured = {"space_id": space.id, "dimension": 8, "norm": 1.0, "no_shift": False}
        values = [
            {"model_id": model_id, "revision_id": revision_id, "data": rng.normal(size=8).astype("<f4").tobytes()}
            for model_id, revision_id in zip(model_ids, revisions, strict=True)
        ]
        session.execute(insert(Vector).values(seq=change_seq.next_value(), **measured), values)


def test_build_publishes_the_vectors_in_postgres(builder: IndexBuilder, pool: np.ndarray):
    assert builder.build(1) == 1

    [row] = rows(builder.database)
    segment = opened(builder, row)
    assert (row.generation, row.vectors, row.kind) == (1, COUNT, "ivf_sq8")
    assert row.recall >= 0.99
    assert segment.model_ids.tolist() == list(range(1, COUNT + 1))
    np.testing.assert_allclose(segment.vectors(np.arange(COUNT)), pool, atol=1e-7)
    with builder.database.transaction() as session:
        assert row.covered_seq == vector_stream.last_seq_of_space(session, 1)


def test_build_leaves_out_removed_and_no_shift_models(builder: IndexBuilder, pool: np.ndarray):
    database = builder.database
    entries.remove(database, 1)
    moved = entries.put(database, "owner-2/m-2", pool[100], commit="two", space=SPACE)
    entries.put(database, "owner-3/m-3", pool[100], commit="two", space=SPACE, no_shift=True)
    assert moved == 2
    builder.build(1)

    [row] = rows(database)
    segment = opened(builder, row)
    assert segment.model_ids[:3].tolist() == [2, 4, 5]
    np.testing.assert_allclose(segment.vectors(np.array([0]))[0], pool[100], atol=1e-7)


def test_small_space_is_not_built(builder: IndexBuilder):
    assert IndexBuilder(builder.database, builder.folder, type(builder.policy)(exact_bytes=10**6)).build(1) is None
    assert rows(builder.database) == []


def test_unchanged_index_is_not_rebuilt(builder: IndexBuilder):
    assert builder.build(1) == 1
    with builder.database.transaction() as session:
        snapshots.postpone(session, 1, 0)
    assert builder.build(1) is None


def test_index_is_rebuilt_after_enough_changes(builder: IndexBuilder, pool: np.ndarray):
    builder.build(1)
    fill(builder.database, 100, DIMENSION, [pool[:100]], prefix="more")
    assert builder.build(1) is None  # the cooldown is not over
    with builder.database.transaction() as session:
        snapshots.postpone(session, 1, 0)
    assert builder.build(1) == 2
    assert rows(builder.database)[0].vectors == COUNT + 100


def test_broken_or_missing_segment_is_rebuilt(builder: IndexBuilder):
    builder.build(1)
    with builder.database.transaction() as session:
        snapshots.postpone(session, 1, 0)
        snapshots.mark_broken(session, 1, 1, "a test says so")
    assert builder.build(1) == 2
    with builder.database.transaction() as session:
        snapshots.postpone(session, 1, 0)
    (builder.folder / SPACE.key / "2").rename(builder.folder / SPACE.key / "away")
    assert builder.build(1) == 3


def test_two_newest_generations_are_kept(builder: IndexBuilder):
    for generation in (1, 2, 3):
        assert rebuild(builder) == generation
    assert [row.generation for row in rows(builder.database)] == [3, 2]
    assert sorted(path.name for path in (builder.folder / SPACE.key).iterdir()) == ["2", "3"]


def test_only_one_builder_works_on_a_space(builder: IndexBuilder):
    with ThreadPoolExecutor(2) as pool:
        generations = list(pool.map(lambda _: builder.build(1), range(2)))
    assert sorted(generations, key=str) == [1, None]


def test_changes_during_a_build_are_in_the_segment_or_the_feed(builder: IndexBuilder, pool: np.ndarray):
    """Rows that are committed while the builder reads are in the segment or in the feed after it."""
    stopping = threading.Event()
    added: list[int] = []

    def write() -> None:
        while not stopping.is_set():
            added.append(entries.put(builder.database, f"late/m{len(added)}", pool[len(added) % COUNT], space=SPACE))

    with ThreadPoolExecutor(1) as writers:
        writing = writers.submit(write)
        try:
            wait_until(lambda: added or writing.done(), "a vector is written")
            builder.build(1)
        finally:
            stopping.set()
        writing.result(LIMIT)
    [row] = rows(builder.database)
    segment = opened(builder, row)
    with builder.database.transaction() as session:
        later = session.connection().exec_driver_sql(f"SELECT model_id FROM vectors WHERE seq > {row.covered_seq}")
        fed = {model_id for (model_id,) in later}
    assert set(added) <= fed | set(segment.model_ids.tolist())


def test_killed_builder_leaves_nothing_published_and_the_next_build_succeeds(builder: IndexBuilder):
    space = builder.folder / SPACE.key
    process = start_builder(builder, first=SLOW_TRAINING)
    try:
        wait_until(lambda: list(space.glob(".building-*")) or process.poll() is not None, "the build has begun")
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL

    assert rows(builder.database) == []
    assert [path.name for path in space.iterdir() if path.name.isdecimal()] == []
    # the lock was released with its connection; the retry delay is not over
    assert builder.build(1) is None
    assert rebuild(builder) == 1
    assert [path.name for path in space.iterdir()] == ["1"]


def test_builder_process_publishes_a_segment(builder: IndexBuilder):
    process = start_builder(builder)
    log = log_of(process)
    assert process.returncode == 0, log
    assert [row.generation for row in rows(builder.database)] == [1]


def test_full_disk_fails_the_build_and_keeps_the_previous_segment(builder: IndexBuilder):
    builder.build(1)
    with builder.database.transaction() as session:
        snapshots.postpone(session, 1, 0)
        snapshots.mark_broken(session, 1, 1, "a test says so")
    process = start_builder(builder, limit=100_000)
    log = log_of(process)

    assert process.returncode == 1
    assert "disk_full" in log
    assert (build_error(builder.database) or "").startswith("disk_full")
    assert [path.name for path in (builder.folder / SPACE.key).iterdir()] == ["1"]

    assert rebuild(builder) == 2
    assert build_error(builder.database) is None


def test_faiss_write_error_becomes_disk_full():
    index = faiss.IndexFlatL2(64)
    index.add(np.zeros((1_000, 64), np.float32))
    with pytest.raises(RuntimeError) as failed:
        faiss.write_index(index, "/dev/full")
    assert isinstance(as_disk_full(failed.value), DiskFull)


@pytest.mark.parametrize("error", [ValueError("write"), RuntimeError("training failed"), OSError(2, "no such file")])
def test_other_errors_are_not_disk_full(error: Exception):
    assert as_disk_full(error) is None


def test_failed_build_stores_its_error_and_postpones_the_next(builder: IndexBuilder, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a test says so")

    monkeypatch.setattr(training, "train", fail)
    with pytest.raises(ZeroDivisionError):
        builder.build(1)
    assert "a test says so" in (build_error(builder.database) or "")
    monkeypatch.undo()
    assert builder.build(1) is None
    assert rebuild(builder) == 1
