from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from catalog.errors import IndexDamaged
from catalog.index import manifest as index_manifest
from catalog.index import training
from catalog.index.manifest import IDS, LISTS, FileRecord, Manifest
from catalog.index.mapped_segment import MappedSegment, VectorSource
from catalog.index.row_bitmap import Rows

FIRST_ID = 1_000


@pytest.fixture(scope="module")
def published(pool: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A segment of the pool, whose models have the ids 1,000, 1,002, ..."""
    built = training.build(pool)
    with index_manifest.unfinished(tmp_path_factory.mktemp("space")) as work:
        built.lists.write(work / LISTS)
        (FIRST_ID + 2 * np.arange(len(pool))).tofile(work / IDS)
        records = {name: FileRecord.of(work / name) for name in (LISTS, IDS)}
        manifest = Manifest("a" * 64, 1, 7, *pool.shape, built.lists.count, built.tuned, records)
        return index_manifest.publish(work, manifest)


@pytest.fixture(scope="module")
def segment(published: tuple[Path, str], pool: np.ndarray) -> MappedSegment:
    return opened(*published, stored(pool))


def opened(folder: Path, sha256: str, source: VectorSource) -> MappedSegment:
    return MappedSegment(folder, index_manifest.read_manifest(folder, sha256), source)


def stored(pool: np.ndarray, *, without: tuple[int, ...] = ()) -> VectorSource:
    """The vectors of the pool's rows, three times as long, in the wrong order, and some of them gone."""

    def source(model_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = (model_ids - FIRST_ID) // 2
        there = ~np.isin(rows, without)
        return model_ids[there][::-1], 3 * pool[rows[there]][::-1]

    return source


def copied(folder: Path, to: Path) -> Path:
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def truth(pool: np.ndarray, query: np.ndarray, mask: np.ndarray, k: int) -> list[int]:
    rows = np.flatnonzero(mask)
    return rows[np.argsort(-(pool[rows] @ query), kind="stable")][:k].tolist()


def recall(segment: MappedSegment, pool: np.ndarray, mask: np.ndarray, k: int, count: int = 60) -> float:
    rows = Rows.where(mask)
    queries = pool[:: len(pool) // count]
    found = [segment.search(query, k, rows).rows for query in queries]
    return float(
        np.mean([len(set(each) & set(truth(pool, q, mask, k))) / k for each, q in zip(found, queries, strict=True)])
    )


def test_the_nearest_are_found_with_their_cosines(segment: MappedSegment, pool: np.ndarray):
    assert recall(segment, pool, np.ones(len(pool), bool), 10) >= 0.99
    found = segment.search(pool[5], 20, None)
    assert found.rows[0] == 5
    np.testing.assert_allclose(found.cosines, pool[found.rows].astype(np.float64) @ pool[5], atol=1e-6)
    assert not found.exact


@pytest.mark.parametrize("k", [1, 50, 500, 1_200, 1_500, 5_000])
def test_as_many_are_found_as_are_asked_for_and_exist(segment: MappedSegment, pool: np.ndarray, k: int):
    found = segment.search(pool[0], k, None)
    assert len(set(found.rows.tolist())) == min(k, len(pool))
    assert (np.diff(found.cosines) <= 0).all()


@pytest.mark.parametrize("share", [0.5, 0.2, 0.05])
def test_a_filter_does_not_cost_neighbours(segment: MappedSegment, pool: np.ndarray, share: float):
    mask = np.random.default_rng(9).random(len(pool)) < share
    assert recall(segment, pool, mask, 10) >= 0.98


def test_a_filter_that_keeps_what_is_far_does_not_either(segment: MappedSegment, pool: np.ndarray):
    far = pool @ pool[0] < np.quantile(pool @ pool[0], 0.3)
    assert recall(segment, pool, far, 10) >= 0.95
    found = segment.search(pool[0], 10, Rows.where(far))
    assert len(set(found.rows.tolist()) & set(truth(pool, pool[0], far, 10))) >= 8


def test_all_that_a_narrow_filter_leaves_are_compared(segment: MappedSegment, pool: np.ndarray):
    mask = np.zeros(len(pool), bool)
    mask[[3, 1_000, 1_499]] = True
    found = segment.search(pool[3], 10, Rows.where(mask))
    assert found.rows.tolist() == truth(pool, pool[3], mask, 10)
    assert found.exact


def test_all_that_a_narrow_filter_leaves_are_found_in_the_lists(segment: MappedSegment, pool: np.ndarray):
    far = np.argsort(pool @ pool[0])[:140]  # what the first lists do not hold
    found = segment.search(pool[0], 30, Rows.where(np.isin(np.arange(len(pool)), far)))
    assert len(found.rows) == 30
    assert not found.exact


def test_a_model_that_is_gone_is_not_found_and_leaves_no_gap(published: tuple[Path, str], pool: np.ndarray):
    nearest = truth(pool, pool[5], np.ones(len(pool), bool), 100)
    segment = opened(*published, stored(pool, without=tuple(nearest[:60])))
    found = segment.search(pool[5], 10, None)
    assert len(found.rows) == 10
    assert not set(found.rows.tolist()) & set(nearest[:60])
    assert not segment.vectors(np.array(nearest[:1])).any()


def test_a_filter_that_leaves_nothing_finds_nothing(segment: MappedSegment, pool: np.ndarray):
    assert segment.search(pool[0], 10, Rows.where(np.zeros(len(pool), bool))).rows.size == 0


def test_models_have_their_rows_and_rows_their_vectors(segment: MappedSegment, pool: np.ndarray):
    wanted = np.array([FIRST_ID, FIRST_ID + 1, FIRST_ID + 4, 5, 10**9])
    assert segment.rows_of(wanted).tolist() == [0, 2]
    np.testing.assert_allclose(segment.vectors(np.array([2, 0, 1])), pool[[2, 0, 1]], atol=1e-6)


def test_its_memory_is_what_is_mapped(segment: MappedSegment):
    assert segment.memory == (segment.folder / LISTS).stat().st_size


def test_a_removed_generation_is_searched_on(published: tuple[Path, str], pool: np.ndarray, tmp_path: Path):
    copy = copied(published[0], tmp_path / "1")
    segment = opened(copy, published[1], stored(pool))
    for path in copy.iterdir():
        path.unlink()
    copy.rmdir()
    gc.collect()
    segment.check_sizes()
    assert segment.search(pool[7], 5, None).rows[0] == 7


@pytest.mark.parametrize("name", [LISTS, IDS])
def test_damage_of_the_same_size_is_found(published: tuple[Path, str], pool: np.ndarray, tmp_path: Path, name: str):
    copy = copied(published[0], tmp_path / "1")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 0x40
    (copy / name).write_bytes(content)
    with pytest.raises(IndexDamaged, match=name):
        opened(copy, published[1], stored(pool))


def test_a_cut_file_is_noticed_at_once(published: tuple[Path, str], pool: np.ndarray, tmp_path: Path):
    copy = copied(published[0], tmp_path / "1")
    segment = opened(copy, published[1], stored(pool))
    with (copy / IDS).open("r+b") as file:
        file.truncate(100)
    with pytest.raises(IndexDamaged, match="cut"):
        segment.check_sizes()
