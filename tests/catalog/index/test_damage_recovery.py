"""Segments that are swapped, deleted, cut or corrupt under a running process: no search fails meanwhile."""

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
from catalog.index.builder import Builder
from catalog.index.follower import Follower, SpaceReport
from catalog.index.manifest import IDS, LISTS, MANIFEST
from catalog.vectors.repository import feed
from tests.support import catalog as entries
from tests.support.index import COUNT, DIMENSION, again
from tests.support.waiting import LIMIT, wait_until


class Process:
    """What an API process has of the index, searching without a pause until it stops."""

    def __init__(self, database: Database, folder: Path, pool: np.ndarray) -> None:
        self.follower = Follower(database, 0.02, folder)
        self._pool = pool
        self._stopping = threading.Event()
        self._threads = ThreadPoolExecutor(1)

    def start(self) -> None:
        self.follower.start()
        wait_until(lambda: self.follower.loaded, "the feed is read")
        self._searching = self._threads.submit(self._search_on)
        wait_until(self.follower.report, "the space is loaded")

    def stop(self) -> int:
        """How many searches there were; raises what one of them raised."""
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
        [found] = self.follower.report()
        return found

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


def last_change(builder: Builder) -> int:
    with builder.database.transaction() as session:
        return feed.last_seq(session)


def wait_until_broken(builder: Builder, generation: int) -> None:
    wait_until(lambda: is_broken(builder, generation), f"generation {generation} is found broken")


def test_without_a_segment_vectors_come_from_postgres(process: Process):
    process.start()
    assert (process.report().generation, process.report().vectors, process.report().fresh) == (0, COUNT, COUNT)


@pytest.mark.exhaustive
def test_a_published_segment_is_taken_over_while_searches_run(process: Process, builder: Builder):
    process.start()
    for generation in (1, 2, 3):
        again(builder)
        process.wait_for(generation)
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


@pytest.mark.exhaustive
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
        wait_until(
            lambda generation=generation: (seen.catch_up(), index.generation == generation)[1],
            f"generation {generation} is searched",
        )

        hits = index.search(pool[0], 2 * COUNT)
        assert sorted(hits.model_ids.tolist()) == sorted(alive)
        expected = np.sum(pool[[alive[int(each)] for each in hits.model_ids]] * pool[0], axis=1)
        np.testing.assert_allclose(hits.cosines, expected, atol=1e-5)
    seen.stop()


def test_a_deleted_generation_is_searched_on_and_made_anew(process: Process, builder: Builder):
    again(builder)
    process.start()
    process.wait_for(generation=1)
    for path in folder(builder, 1).iterdir():
        path.unlink()
    folder(builder, 1).rmdir()
    entries.remove(builder.database, entries.put(builder.database, "late/one", [1] * DIMENSION, space=SPACE))
    changed = last_change(builder)
    wait_until(lambda: process.report().covered_seq >= changed, "the follower has looked since")
    assert process.report().generation == 1

    with builder.database.transaction() as session:
        snapshots.postpone(session, 1, 0)
    assert builder.build(1) == 2  # without being told: its folder is missing
    process.wait_for(generation=2)


@pytest.mark.parametrize("name", [LISTS, IDS, MANIFEST])
def test_a_corrupt_segment_is_left_for_the_one_before(process: Process, builder: Builder, name: str):
    again(builder)
    again(builder)
    corrupt(folder(builder, 2) / name)
    process.start()

    wait_until_broken(builder, 2)
    process.wait_for(generation=1)
    with builder.database.transaction() as session:
        snapshots.postpone(session, 1, 0)
    assert builder.build(1) == 3
    process.wait_for(generation=3)
    wait_until(lambda: process.report().problem is None, "the problem is over")


@pytest.mark.parametrize("name", [LISTS, IDS, MANIFEST])
def test_a_corrupt_only_segment_is_left_for_postgres(process: Process, builder: Builder, name: str):
    again(builder)
    corrupt(folder(builder, 1) / name)
    process.start()
    wait_until_broken(builder, 1)
    process.wait_for(generation=0)
    assert process.report().fresh == COUNT


def test_a_cut_segment_is_left_for_the_one_before(process: Process, builder: Builder):
    again(builder)
    again(builder)
    with (folder(builder, 2) / LISTS).open("r+b") as file:
        file.truncate(1_000)
    process.start()
    process.wait_for(generation=1)
    wait_until(lambda: "1,000 bytes" in (process.report().problem or ""), "the cut file is told of")


def test_a_segment_that_is_corrupt_when_it_is_published_is_not_taken(process: Process, builder: Builder):
    again(builder)
    process.start()
    process.wait_for(generation=1)
    with builder.database.transaction() as lock:  # keeps the row of the next generation from being seen
        lock.connection().exec_driver_sql("LOCK index_snapshots IN EXCLUSIVE MODE")
        with ThreadPoolExecutor(1) as other:
            building = other.submit(again, builder)
            wait_until((folder(builder, 2) / MANIFEST).exists, "the segment is about to be published")
            corrupt(folder(builder, 2) / LISTS)
            lock.rollback()
            assert building.result(LIMIT) == 2
    wait_until_broken(builder, 2)
    wait_until(lambda: "checksum" in (process.report().problem or ""), "the wrong checksum is told of")
    assert process.report().generation == 1


def test_a_segment_that_is_not_on_this_machine_is_done_without(builder: Builder, tmp_path: Path):
    again(builder)
    elsewhere = Follower(builder.database, 3600, tmp_path / "another" / "machine")
    elsewhere.catch_up()
    assert len(elsewhere.index(1, DIMENSION)) == COUNT
    assert elsewhere.report()[0].problem is not None
    assert not is_broken(builder, 1)
    elsewhere.stop()


def test_a_vector_is_found_and_gone_with_the_first_look_after_its_commit(builder: Builder, pool: np.ndarray):
    """How soon that is, is the follower's interval alone."""
    again(builder)
    follower = Follower(builder.database, 3600, builder.folder)
    follower.catch_up()
    assert follower.index(1, DIMENSION).generation == 1
    for number in range(5):
        query = -pool[number]
        model_id = entries.put(builder.database, f"new/m{number}", query, space=SPACE)
        assert first(follower, query) != model_id
        follower.catch_up()
        assert first(follower, query) == model_id
        entries.remove(builder.database, model_id)
        follower.catch_up()
        assert first(follower, query) != model_id
    follower.stop()


def first(follower: Follower, query: np.ndarray) -> int:
    return int(follower.index(1, DIMENSION).search(query, 1).model_ids[0])


@pytest.mark.exhaustive
def test_no_row_of_concurrent_writers_is_missed(builder: Builder, pool: np.ndarray, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING)
    again(builder)
    follower = Follower(builder.database, 0.01, builder.folder)
    follower.start()
    wait_until(lambda: follower.loaded, "the feed is read")
    index = follower.index(1, DIMENSION)

    def write(writer: int) -> int:
        fill(builder.database, 20, DIMENSION, [pool[:20]], prefix=f"writer-{writer}")
        return sum(bool(entries.put(builder.database, f"w{writer}/m{n}", pool[n], space=SPACE)) for n in range(10))

    with ThreadPoolExecutor(6) as writers:
        assert sum(writers.map(write, range(6))) == 60
    wait_until(lambda: len(index) == COUNT + 6 * 30 or caplog.text, "all rows are there, or something is wrong")
    assert (len(index), caplog.text) == (COUNT + 6 * 30, "")
    follower.stop()
