"""Segments are swapped, deleted, truncated or corrupted while a process searches: no search fails."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from benchmarks.filling import SPACE, fill
from catalog.database import Database
from catalog.index import repository as snapshots
from catalog.index.builder import IndexBuilder
from catalog.index.follower import IndexFollower, SpaceReport
from catalog.index.manifest import IDS_FILE, LISTS_FILE, MANIFEST_FILE
from catalog.vectors.repository import feed
from tests.support import catalog as entries
from tests.support.index import COUNT, DIMENSION, rebuild
from tests.support.waiting import LIMIT, wait_until


class Process:
    """A follower as in an API process, with a thread that searches continuously until `stop`."""

    def __init__(self, database: Database, folder: Path, pool: np.ndarray) -> None:
        self.follower = IndexFollower(database, 0.02, folder)
        self._pool = pool
        self._stopping = threading.Event()
        self._threads = ThreadPoolExecutor(1)

    def start(self) -> None:
        self.follower.start()
        wait_until(lambda: self.follower.loaded, "the feed is read")
        self._searching = self._threads.submit(self._search_on)
        wait_until(self.follower.report, "the space is loaded")

    def stop(self) -> int:
        """Return the number of searches; raises the error of a search that failed."""
        self._stopping.set()
        try:
            return self._searching.result(LIMIT)
        finally:
            self._threads.shutdown()
            self.follower.stop()

    def nearest(self, model: int) -> int:
        hits = self.follower.index(1, DIMENSION).search(self._pool[model - 1], 5)
        np.testing.assert_allclose(hits.cosines[0], 1, atol=1e-5)
        return int(hits.model_ids[0])

    def report(self) -> SpaceReport:
        [report] = self.follower.report()
        return report

    def wait_for(self, generation: int) -> None:
        wait_until(lambda: self.report().generation == generation, f"generation {generation} is searched")

    def _search_on(self) -> int:
        count = 0
        while not self._stopping.is_set():
            model = 1 + count % COUNT
            assert self.nearest(model) == model
            count += 1
            time.sleep(0.001)
        return count


@pytest.fixture
def process(builder: IndexBuilder, pool: np.ndarray) -> Iterator[Process]:
    process = Process(builder.database, builder.folder, pool)
    yield process
    assert process.stop() > 0


def folder(builder: IndexBuilder, generation: int) -> Path:
    return builder.folder / SPACE.key / str(generation)


def corrupt(path: Path) -> None:
    """Flip a bit in the middle, in a new file, so that processes that map the old one are not affected."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.unlink()
    path.write_bytes(content)


def is_broken(builder: IndexBuilder, generation: int) -> bool:
    with builder.database.transaction() as session:
        return generation not in [row.generation for row in snapshots.list_newest(session, [1]).get(1, [])]


def last_change(builder: IndexBuilder) -> int:
    with builder.database.transaction() as session:
        return feed.last_seq(session)


def wait_until_broken(builder: IndexBuilder, generation: int) -> None:
    wait_until(lambda: is_broken(builder, generation), f"generation {generation} is found broken")


def test_without_a_segment_vectors_are_loaded_from_postgres(process: Process):
    process.start()
    assert (process.report().generation, process.report().vectors, process.report().fresh) == (0, COUNT, COUNT)


@pytest.mark.exhaustive
def test_published_segments_are_swapped_in_while_searches_run(process: Process, builder: IndexBuilder):
    process.start()
    for generation in (1, 2, 3):
        rebuild(builder)
        process.wait_for(generation)
        assert (process.report().vectors, process.report().fresh) == (COUNT, 0)


def test_changes_after_a_build_are_searched_with_the_segment(process: Process, builder: IndexBuilder, pool: np.ndarray):
    rebuild(builder)
    entries.put(builder.database, "late/one", -pool[0], space=SPACE)
    entries.remove(builder.database, 77)
    entries.put(builder.database, "owner-78/m-78", pool[3], commit="two", space=SPACE, no_shift=True)
    follower = process.follower
    process._pool = np.delete(pool, [76, 77], axis=0)  # searches leave these out
    follower.sync()
    late = follower.index(1, DIMENSION).search(-pool[0], 1)
    assert late.model_ids.tolist() == [COUNT + 1]
    everything = follower.index(1, DIMENSION).search(pool[76], COUNT + 5)
    assert len(everything.model_ids) == COUNT - 1
    assert not {77, 78} & set(everything.model_ids.tolist())
    process._pool = pool[:70]
    process._searching = process._threads.submit(lambda: 1)


@pytest.mark.exhaustive
def test_swap_loses_no_change_before_during_or_after_it(builder: IndexBuilder, pool: np.ndarray):
    """Models are added, changed and removed; after each swap the index holds what Postgres holds."""
    database, follower = builder.database, IndexFollower(builder.database, 3600, builder.folder)
    follower.sync()
    index = follower.index(1, DIMENSION)
    random = np.random.default_rng(0)
    alive = dict(zip(range(1, COUNT + 1), range(COUNT), strict=True))
    for generation in (1, 2, 3):
        for number in range(12):
            removed, changed = (int(model_id) for model_id in random.choice(list(alive), 2, replace=False))
            entries.remove(database, removed)
            del alive[removed]
            row = int(random.integers(COUNT))
            with database.transaction() as session:
                name = session.connection().exec_driver_sql(f"SELECT repo_id FROM models WHERE id = {changed}").scalar()
            entries.put(database, str(name), pool[row], commit=f"{generation}-{number}", space=SPACE)
            if changed in alive:
                alive[changed] = row
            if number == 3:
                follower.sync()
            if number == 6:
                rebuild(builder)
        wait_until(
            lambda generation=generation: (follower.sync(), index.generation == generation)[1],
            f"generation {generation} is searched",
        )

        hits = index.search(pool[0], 2 * COUNT)
        assert sorted(hits.model_ids.tolist()) == sorted(alive)
        expected = np.sum(pool[[alive[int(model_id)] for model_id in hits.model_ids]] * pool[0], axis=1)
        np.testing.assert_allclose(hits.cosines, expected, atol=1e-5)
    follower.stop()


def test_deleted_generation_stays_searchable_and_is_rebuilt(process: Process, builder: IndexBuilder):
    rebuild(builder)
    process.start()
    process.wait_for(generation=1)
    for path in folder(builder, 1).iterdir():
        path.unlink()
    folder(builder, 1).rmdir()
    entries.remove(builder.database, entries.put(builder.database, "late/one", [1] * DIMENSION, space=SPACE))
    changed = last_change(builder)
    wait_until(lambda: process.report().covered_seq >= changed, "the follower has synced since")
    assert process.report().generation == 1

    with builder.database.transaction() as session:
        snapshots.postpone(session, 1, 0)
    assert builder.build(1) == 2  # its folder is missing
    process.wait_for(generation=2)


@pytest.mark.parametrize("name", [LISTS_FILE, IDS_FILE, MANIFEST_FILE])
def test_corrupt_segment_falls_back_to_the_previous_generation(process: Process, builder: IndexBuilder, name: str):
    rebuild(builder)
    rebuild(builder)
    corrupt(folder(builder, 2) / name)
    process.start()

    wait_until_broken(builder, 2)
    process.wait_for(generation=1)
    with builder.database.transaction() as session:
        snapshots.postpone(session, 1, 0)
    assert builder.build(1) == 3
    process.wait_for(generation=3)
    wait_until(lambda: process.report().problem is None, "the problem is over")


@pytest.mark.parametrize("name", [LISTS_FILE, IDS_FILE, MANIFEST_FILE])
def test_corrupt_only_segment_falls_back_to_postgres(process: Process, builder: IndexBuilder, name: str):
    rebuild(builder)
    corrupt(folder(builder, 1) / name)
    process.start()
    wait_until_broken(builder, 1)
    process.wait_for(generation=0)
    assert process.report().fresh == COUNT


def test_truncated_segment_falls_back_to_the_previous_generation(process: Process, builder: IndexBuilder):
    rebuild(builder)
    rebuild(builder)
    with (folder(builder, 2) / LISTS_FILE).open("r+b") as file:
        file.truncate(1_000)
    process.start()
    process.wait_for(generation=1)
    wait_until(lambda: "1,000 bytes" in (process.report().problem or ""), "the truncated file is reported")


def test_segment_that_is_corrupt_when_published_is_not_used(process: Process, builder: IndexBuilder):
    rebuild(builder)
    process.start()
    process.wait_for(generation=1)
    with builder.database.transaction() as lock:  # holds back the row of the next generation
        lock.connection().exec_driver_sql("LOCK index_snapshots IN EXCLUSIVE MODE")
        with ThreadPoolExecutor(1) as other:
            building = other.submit(rebuild, builder)
            wait_until((folder(builder, 2) / MANIFEST_FILE).exists, "the segment is about to be published")
            corrupt(folder(builder, 2) / LISTS_FILE)
            lock.rollback()
            assert building.result(LIMIT) == 2
    wait_until_broken(builder, 2)
    wait_until(lambda: "checksum" in (process.report().problem or ""), "the wrong checksum is reported")
    assert process.report().generation == 1


def test_segment_on_another_machine_is_not_needed_or_marked_broken(builder: IndexBuilder, tmp_path: Path):
    rebuild(builder)
    elsewhere = IndexFollower(builder.database, 3600, tmp_path / "another" / "machine")
    elsewhere.sync()
    assert len(elsewhere.index(1, DIMENSION)) == COUNT
    assert elsewhere.report()[0].problem is not None
    assert not is_broken(builder, 1)
    elsewhere.stop()


def test_vector_appears_and_disappears_with_the_first_sync_after_its_commit(builder: IndexBuilder, pool: np.ndarray):
    """The delay after a commit is at most the interval of the follower."""
    rebuild(builder)
    follower = IndexFollower(builder.database, 3600, builder.folder)
    follower.sync()
    assert follower.index(1, DIMENSION).generation == 1
    for number in range(5):
        query = -pool[number]
        model_id = entries.put(builder.database, f"new/m{number}", query, space=SPACE)
        assert first(follower, query) != model_id
        follower.sync()
        assert first(follower, query) == model_id
        entries.remove(builder.database, model_id)
        follower.sync()
        assert first(follower, query) != model_id
    follower.stop()


def first(follower: IndexFollower, query: np.ndarray) -> int:
    return int(follower.index(1, DIMENSION).search(query, 1).model_ids[0])


@pytest.mark.exhaustive
def test_rows_of_concurrent_writers_are_all_found(
    builder: IndexBuilder, pool: np.ndarray, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.WARNING)
    rebuild(builder)
    follower = IndexFollower(builder.database, 0.01, builder.folder)
    follower.start()
    wait_until(lambda: follower.loaded, "the feed is read")
    index = follower.index(1, DIMENSION)

    def write(writer: int) -> int:
        fill(builder.database, 20, DIMENSION, [pool[:20]], prefix=f"writer-{writer}")
        return sum(bool(entries.put(builder.database, f"w{writer}/m{n}", pool[n], space=SPACE)) for n in range(10))

    with ThreadPoolExecutor(6) as writers:
        assert sum(writers.map(write, range(6))) == 60
    wait_until(lambda: len(index) == COUNT + 6 * 30 or caplog.text, "all rows are found, or a warning is logged")
    assert (len(index), caplog.text) == (COUNT + 6 * 30, "")
    follower.stop()
