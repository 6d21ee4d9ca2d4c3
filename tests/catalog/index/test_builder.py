"""Builds of main segments, and what may go wrong in them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest

from benchmarks.filling import SPACE, fill
from catalog.database import Database
from catalog.errors import DiskFull
from catalog.index import repository as snapshots
from catalog.index import training
from catalog.index.builder import Builder, as_disk_full
from catalog.index.loader import Loader
from catalog.index.mapped_segment import MappedSegment
from catalog.tables import IndexSnapshot
from catalog.vectors.repository import stream as vector_stream
from tests.support import catalog as entries
from tests.support.index import COUNT, DIMENSION, again
from tests.support.waiting import LIMIT, wait_until

ROOT = Path(__file__).parents[3]
# a process that makes way for all others gets no time at all where a test runs on each core
EAGER = "import os; os.nice = os.sched_setscheduler = lambda *_: None"
HELD_UP = "import time; from catalog.index import training; training.build = lambda _: time.sleep(600)"


def rows(database: Database) -> list[IndexSnapshot]:
    with database.transaction() as session:
        return snapshots.newest(session, [1]).get(1, [])


def build_error(database: Database) -> str | None:
    with database.transaction() as session:
        return snapshots.build_errors(session, [1]).get(1)


def started(builder: Builder, *, limit: int | None = None, first: str = "") -> subprocess.Popen[str]:
    """A builder of its own process, as a worker starts it; `limit` is the largest file that it may write, and `first`
    what its process does before.
    """
    lines = ["import resource, runpy, sys", EAGER, first]
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
    """What it said until its end. It never outlives its test: it holds the lock of the builders of a space."""
    try:
        return process.communicate(timeout=100)[1]
    finally:
        process.kill()


def opened(builder: Builder, row: IndexSnapshot) -> MappedSegment:
    return Loader(builder.database, builder.folder).open(row)


def test_a_build_publishes_what_postgres_holds(builder: Builder, pool: np.ndarray):
    assert builder.build(1) == 1

    [row] = rows(builder.database)
    segment = opened(builder, row)
    assert (row.generation, row.vectors, row.kind) == (1, COUNT, "ivf_sq8")
    assert row.recall >= 0.99
    assert segment.model_ids.tolist() == list(range(1, COUNT + 1))
    np.testing.assert_allclose(segment.vectors(np.arange(COUNT)), pool, atol=1e-7)
    with builder.database.transaction() as session:
        assert row.covered_seq == vector_stream.covered(session, 1)


def test_models_that_left_moved_on_or_do_not_move_are_not_in_it(builder: Builder, pool: np.ndarray):
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


def test_a_small_space_is_not_built(builder: Builder):
    assert Builder(builder.database, builder.folder, type(builder.policy)(exact_bytes=10**6)).build(1) is None
    assert rows(builder.database) == []


def test_an_index_that_is_new_is_not_built_again(builder: Builder):
    assert builder.build(1) == 1
    with builder.database.transaction() as session:
        snapshots.postpone(session, 1, 0)
    assert builder.build(1) is None


def test_enough_changes_call_for_another_build(builder: Builder, pool: np.ndarray):
    builder.build(1)
    fill(builder.database, 100, DIMENSION, [pool[:100]], prefix="more")
    assert builder.build(1) is None  # it has only just been built
    with builder.database.transaction() as session:
        snapshots.postpone(session, 1, 0)
    assert builder.build(1) == 2
    assert rows(builder.database)[0].vectors == COUNT + 100


def test_a_broken_or_missing_segment_calls_for_another(builder: Builder):
    builder.build(1)
    with builder.database.transaction() as session:
        snapshots.postpone(session, 1, 0)
        snapshots.mark_broken(session, 1, 1, "a test says so")
    assert builder.build(1) == 2
    with builder.database.transaction() as session:
        snapshots.postpone(session, 1, 0)
    (builder.folder / SPACE.key / "2").rename(builder.folder / SPACE.key / "away")
    assert builder.build(1) == 3


def test_two_generations_are_kept(builder: Builder):
    for generation in (1, 2, 3):
        assert again(builder) == generation
    assert [row.generation for row in rows(builder.database)] == [3, 2]
    assert sorted(path.name for path in (builder.folder / SPACE.key).iterdir()) == ["2", "3"]


def test_two_builders_do_not_work_on_one_space(builder: Builder):
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: builder.build(1), range(2)))
    assert sorted(found, key=str) == [1, None]


def test_changes_during_a_build_are_in_the_feed_after_it(builder: Builder, pool: np.ndarray):
    """Rows that are committed while the builder reads may be in the segment or not: the feed has them in any case."""
    stopping = threading.Event()
    added: list[int] = []

    def write() -> None:
        while not stopping.is_set():
            added.append(entries.put(builder.database, f"late/m{len(added)}", pool[len(added) % COUNT], space=SPACE))

    with ThreadPoolExecutor(1) as writers:
        writing = writers.submit(write)
        try:
            wait_until(lambda: added or writing.done(), "somebody writes")
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


def test_a_killed_builder_leaves_nothing_and_the_next_one_builds(builder: Builder):
    space = builder.folder / SPACE.key
    process = started(builder, first=HELD_UP)
    try:
        wait_until(lambda: list(space.glob(".building-*")) or process.poll() is not None, "the build has begun")
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL

    assert rows(builder.database) == []
    assert [path.name for path in space.iterdir() if path.name.isdecimal()] == []
    # the lock went with its connection; a build that was broken off is thought of again after a while
    assert builder.build(1) is None
    assert again(builder) == 1
    assert [path.name for path in space.iterdir()] == ["1"]


def test_a_builder_process_builds(builder: Builder):
    process = started(builder)
    log = log_of(process)
    assert process.returncode == 0, log
    assert [row.generation for row in rows(builder.database)] == [1]


def test_a_full_disk_ends_a_build_and_leaves_the_one_before(builder: Builder):
    builder.build(1)
    with builder.database.transaction() as session:
        snapshots.postpone(session, 1, 0)
        snapshots.mark_broken(session, 1, 1, "a test wants another")
    process = started(builder, limit=100_000)
    log = log_of(process)

    assert process.returncode == 1
    assert "disk_full" in log
    assert (build_error(builder.database) or "").startswith("disk_full")
    assert [path.name for path in (builder.folder / SPACE.key).iterdir()] == ["1"]

    assert again(builder) == 2
    assert build_error(builder.database) is None


def test_a_disk_that_is_full_when_faiss_writes_is_a_full_disk():
    index = faiss.IndexFlatL2(64)
    index.add(np.zeros((1_000, 64), np.float32))
    with pytest.raises(RuntimeError) as failed:
        faiss.write_index(index, "/dev/full")
    assert isinstance(as_disk_full(failed.value), DiskFull)


@pytest.mark.parametrize("error", [ValueError("write"), RuntimeError("training failed"), OSError(2, "no such file")])
def test_another_failure_is_not_a_full_disk(error: Exception):
    assert as_disk_full(error) is None


def test_a_failure_is_stored_and_the_next_build_put_off(builder: Builder, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a test says so")

    monkeypatch.setattr(training, "build", fail)
    with pytest.raises(ZeroDivisionError):
        builder.build(1)
    assert "a test says so" in (build_error(builder.database) or "")
    monkeypatch.undo()
    assert builder.build(1) is None
    assert again(builder) == 1
