"""Segments that are swapped, deleted, cut or corrupt under a running process: no search fails meanwhile."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from benchmarks.filling import SPACE, fill
from catalog.database import Database
from catalog.index import Follower, SpaceReport
from catalog.index.build import Builder
from catalog.index.files import IDS, LISTS, MANIFEST
from catalog.repository import snapshots
from tests.catalog import entries
from tests.catalog.index.conftest import COUNT, DIMENSION, again


class Process:
    """What an API process has of the index, searching without a pause until it stops."""

    def __init__(self, database: Database, folder: Path, pool: np.ndarray) -> None:
        self.follower = Follower(database, 0.02, folder)
        self._pool = pool
        self._stopping = threading.Event()
        self._threads = ThreadPoolExecutor(1)

    def start(self) -> None:
        self.follower.start()
        until(lambda: self.follower.loaded)
        self._searching = self._threads.submit(self._search_on)
        until(self.follower.report)

    def stop(self) -> int:
        """How many searches there were; raises what one of them raised."""
        self._stopping.set()
        try:
            return self._searching.result(30)
        finally:
            self._threads.shutdown()
            self.follower.stop()

    def nearest(self, model: int) -> int:
        hits = self.follower.index(1, DIMENSION).search(self._pool[model - 1], 5)
        np.testing.assert_allclose(hits.cosines[0], 1, atol=1e-5)
        return int(hits.model_ids[0])

    def report(self) -> SpaceReport:
        [found] = self.follower.report()
        return found

    def _search_on(self) -> int:
        count = 0
        while not self._stopping.is_set():
            model = 1 + count % COUNT
            assert self.nearest(model) == model
            count += 1
            time.sleep(0.001)
        return count


def until(condition: Callable[[], object], limit: float = 20) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


@pytest.fixture
def process(builder: Builder, pool: np.ndarray) -> Iterator[Process]:
    process = Process(builder.database, builder.folder, pool)
    yield process
    assert process.stop() > 0


def folder(builder: Builder, generation: int) -> Path:
    return builder.folder / SPACE.key / str(generation)


def corrupt(path: Path) -> None:
    """A flipped bit in the middle, written past those that have the file mapped."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.unlink()
    path.write_bytes(content)


def is_broken(builder: Builder, generation: int) -> bool:
    with builder.database.transaction() as session:
        return generation not in [row.generation for row in snapshots.newest(session, [1]).get(1, [])]


def test_without_a_segment_vectors_come_from_postgres(process: Process):
    process.start()
    until(process.follower.report)
    assert (process.report().generation, process.report().vectors, process.report().fresh) == (0, COUNT, COUNT)


def test_a_published_segment_is_taken_over_while_searches_run(process: Process, builder: Builder):
    process.start()
    for generation in (1, 2, 3):
        again(builder)
        until(lambda generation=generation: process.report().generation == generation)
        assert (process.report().vectors, process.report().fresh) == (COUNT, 0)


def test_what_changed_after_a_segment_was_made_is_found_with_it(process: Process, builder: Builder, pool: np.ndarray):
    again(builder)
    entries.put(builder.database, "late/one", -pool[0], space=SPACE)
    entries.remove(builder.database, 77)
    entries.put(builder.database, "owner-78/m-78", pool[3], commit="two", space=SPACE, no_shift=True)
    index = process.follower
    process._pool = np.delete(pool, [76, 77], axis=0)  # not asked for any more
    index.catch_up()
    late = index.index(1, DIMENSION).search(-pool[0], 1)
    assert late.model_ids.tolist() == [COUNT + 1]
    everything = index.index(1, DIMENSION).search(pool[76], COUNT + 5)
    assert len(everything.model_ids) == COUNT - 1
    assert not {77, 78} & set(everything.model_ids.tolist())
    process._pool = pool[:70]
    process._searching = process._threads.submit(lambda: 1)


def test_changes_before_during_and_after_a_swap_are_all_there(builder: Builder, pool: np.ndarray):
    """Models come, move and go all the while; after each swap the index holds what Postgres holds."""
    database, seen = builder.database, Follower(builder.database, 3600, builder.folder)
    seen.catch_up()
    index = seen.index(1, DIMENSION)
    random = np.random.default_rng(0)
    alive = dict(zip(range(1, COUNT + 1), range(COUNT), strict=True))
    for generation in (1, 2, 3):
        for number in range(12):
            gone, moved = (int(each) for each in random.choice(list(alive), 2, replace=False))
            entries.remove(database, gone)
            del alive[gone]
            row = int(random.integers(COUNT))
            with database.transaction() as session:
                name = session.connection().exec_driver_sql(f"SELECT repo_id FROM models WHERE id = {moved}").scalar()
            entries.put(database, str(name), pool[row], commit=f"{generation}-{number}", space=SPACE)
            if moved in alive:
                alive[moved] = row
            if number == 3:
                seen.catch_up()
            if number == 6:
                again(builder)
        until(lambda generation=generation: (seen.catch_up(), index.generation == generation)[1])

        hits = index.search(pool[0], 2 * COUNT)
        assert sorted(hits.model_ids.tolist()) == sorted(alive)
        expected = np.sum(pool[[alive[int(each)] for each in hits.model_ids]] * pool[0], axis=1)
        np.testing.assert_allclose(hits.cosines, expected, atol=1e-5)
    seen.stop()


def test_a_deleted_generation_is_searched_on_and_made_anew(process: Process, builder: Builder):
    again(builder)
    process.start()
    until(lambda: process.report().generation == 1)
    for path in folder(builder, 1).iterdir():
        path.unlink()
    folder(builder, 1).rmdir()
    time.sleep(0.1)
    assert process.report().generation == 1

    with builder.database.transaction() as session:
        snapshots.postpone(session, 1, 0)
    assert builder.build(1) == 2  # without being told: its folder is missing
    until(lambda: process.report().generation == 2)


@pytest.mark.parametrize("name", [LISTS, IDS, MANIFEST])
def test_a_corrupt_segment_is_left_for_the_one_before(process: Process, builder: Builder, name: str):
    again(builder)
    again(builder)
    corrupt(folder(builder, 2) / name)
    process.start()

    until(lambda: is_broken(builder, 2))
    until(lambda: process.report().generation == 1)
    with builder.database.transaction() as session:
        snapshots.postpone(session, 1, 0)
    assert builder.build(1) == 3
    until(lambda: process.report().generation == 3)
    assert process.report().problem is None


@pytest.mark.parametrize("name", [LISTS, IDS, MANIFEST])
def test_a_corrupt_only_segment_is_left_for_postgres(process: Process, builder: Builder, name: str):
    again(builder)
    corrupt(folder(builder, 1) / name)
    process.start()
    until(lambda: is_broken(builder, 1))
    until(lambda: process.report().generation == 0)
    assert process.report().fresh == COUNT


def test_a_cut_segment_is_left_for_the_one_before(process: Process, builder: Builder):
    again(builder)
    again(builder)
    with (folder(builder, 2) / LISTS).open("r+b") as file:
        file.truncate(1_000)
    process.start()
    until(lambda: process.report().generation == 1)
    assert "1,000 bytes" in (process.report().problem or "")


def test_a_segment_that_is_corrupt_when_it_is_published_is_not_taken(process: Process, builder: Builder):
    again(builder)
    process.start()
    until(lambda: process.report().generation == 1)
    with builder.database.transaction() as lock:  # keeps the row of the next generation from being seen
        lock.connection().exec_driver_sql("LOCK index_snapshots IN EXCLUSIVE MODE")
        with ThreadPoolExecutor(1) as other:
            building = other.submit(again, builder)
            until((folder(builder, 2) / MANIFEST).exists)
            corrupt(folder(builder, 2) / LISTS)
            lock.rollback()
            assert building.result(30) == 2
    until(lambda: is_broken(builder, 2))
    assert process.report().generation == 1
    assert "checksum" in (process.report().problem or "")


def test_a_segment_that_is_not_on_this_machine_is_done_without(builder: Builder, tmp_path: Path):
    again(builder)
    elsewhere = Follower(builder.database, 3600, tmp_path / "another" / "machine")
    elsewhere.catch_up()
    assert len(elsewhere.index(1, DIMENSION)) == COUNT
    assert elsewhere.report()[0].problem is not None
    assert not is_broken(builder, 1)
    elsewhere.stop()


def test_a_vector_is_found_within_a_second_of_its_commit(builder: Builder, pool: np.ndarray):
    again(builder)
    process = Process(builder.database, builder.folder, pool)
    process.follower = Follower(builder.database, 0.2, builder.folder)
    process.start()
    until(lambda: process.report().generation == 1)
    delays = []
    for number in range(5):
        query = -pool[number]
        model_id = entries.put(builder.database, f"new/m{number}", query, space=SPACE)
        committed = time.monotonic()
        until(lambda query=query, model_id=model_id: first(process, query) == model_id, limit=5)
        delays.append(time.monotonic() - committed)
        entries.remove(builder.database, model_id)
        committed = time.monotonic()
        until(lambda query=query, model_id=model_id: first(process, query) != model_id, limit=5)
        delays.append(time.monotonic() - committed)
    process.stop()
    assert sorted(delays)[-2] < 1  # this machine may have had a moment of its own


def first(process: Process, query: np.ndarray) -> int:
    return int(process.follower.index(1, DIMENSION).search(query, 1).model_ids[0])


def test_no_row_of_concurrent_writers_is_missed(builder: Builder, pool: np.ndarray, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING)
    again(builder)
    follower = Follower(builder.database, 0.01, builder.folder)
    follower.start()
    until(lambda: follower.loaded)
    index = follower.index(1, DIMENSION)

    def write(writer: int) -> int:
        fill(builder.database, 20, DIMENSION, [pool[:20]], prefix=f"writer-{writer}")
        return sum(bool(entries.put(builder.database, f"w{writer}/m{n}", pool[n], space=SPACE)) for n in range(10))

    with ThreadPoolExecutor(6) as writers:
        assert sum(writers.map(write, range(6))) == 60
    until(lambda: len(index) == COUNT + 6 * 30 or caplog.text)
    assert (len(index), caplog.text) == (COUNT + 6 * 30, "")
    follower.stop()
