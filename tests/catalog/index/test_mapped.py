from __future__ import annotations

import gc
from pathlib import Path

import faiss
import numpy as np
import pytest

from catalog.errors import IndexDamaged
from catalog.index import files, mapped, training
from catalog.index.files import IDS, LISTS, VECTORS, FileRecord, Manifest
from catalog.index.mapped import MappedSegment
from catalog.index.rows import Rows

FIRST_ID = 1_000


@pytest.fixture(scope="module")
def published(pool: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A segment of the pool, whose models have the ids 1,000, 1,002, ..."""
    built = training.build(pool)
    with files.unfinished(tmp_path_factory.mktemp("space")) as work:
        faiss.write_index(built.lists, str(work / LISTS))
        pool.tofile(work / VECTORS)
        (FIRST_ID + 2 * np.arange(len(pool))).tofile(work / IDS)
        records = {name: FileRecord.of(work / name) for name in (LISTS, VECTORS, IDS)}
        manifest = Manifest("a" * 64, 1, 7, *pool.shape, built.lists.nlist, built.tuned, records)
        return files.publish(work, manifest)


@pytest.fixture(scope="module")
def segment(published: tuple[Path, str]) -> MappedSegment:
    folder, sha256 = published
    return MappedSegment(folder, files.read_manifest(folder, sha256))


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
def test_a_filter_does_not_cost_neighbours(
    segment: MappedSegment, pool: np.ndarray, share: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mapped, "COMPARE_BYTES", 0)  # through the lists, however few are left
    mask = np.random.default_rng(9).random(len(pool)) < share
    assert recall(segment, pool, mask, 10) >= 0.98


def test_a_filter_that_keeps_what_is_far_does_not_either(
    segment: MappedSegment, pool: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mapped, "COMPARE_BYTES", 0)
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


def test_all_that_a_narrow_filter_leaves_are_found_in_the_lists(
    segment: MappedSegment, pool: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mapped, "COMPARE_BYTES", 0)
    far = np.argsort(pool @ pool[0])[:40]  # what the first lists do not hold
    found = segment.search(pool[0], 30, Rows.where(np.isin(np.arange(len(pool)), far)))
    assert len(found.rows) == 30


def test_a_filter_that_leaves_nothing_finds_nothing(segment: MappedSegment, pool: np.ndarray):
    assert segment.search(pool[0], 10, Rows.where(np.zeros(len(pool), bool))).rows.size == 0


def test_models_have_their_rows_and_rows_their_vectors(segment: MappedSegment, pool: np.ndarray):
    wanted = np.array([FIRST_ID, FIRST_ID + 1, FIRST_ID + 4, 5, 10**9])
    assert segment.rows_of(wanted).tolist() == [0, 2]
    assert (segment.vectors(np.array([2, 0])) == pool[[2, 0]]).all()


def test_it_takes_little_more_than_a_quarter_of_the_vectors(segment: MappedSegment, pool: np.ndarray):
    # centroids and ids weigh more here than among 100,000 vectors of 4,096 entries, where it is 0.26
    assert segment.memory == (segment.folder / LISTS).stat().st_size
    assert segment.memory < 0.38 * pool.nbytes


def test_a_removed_generation_is_searched_on(published: tuple[Path, str], pool: np.ndarray, tmp_path: Path):
    folder, sha256 = published
    copy = tmp_path / "1"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    segment = MappedSegment(copy, files.read_manifest(copy, sha256))
    for path in copy.iterdir():
        path.unlink()
    copy.rmdir()
    gc.collect()
    segment.check_sizes()
    assert segment.search(pool[7], 5, None).rows[0] == 7


@pytest.mark.parametrize("name", [LISTS, IDS, VECTORS])
def test_damage_of_the_same_size_is_found(published: tuple[Path, str], tmp_path: Path, name: str):
    folder, sha256 = published
    copy = tmp_path / "1"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 0x40
    (copy / name).write_bytes(content)
    with pytest.raises(IndexDamaged, match=name):
        MappedSegment(copy, files.read_manifest(copy, sha256)).check()


def test_a_cut_file_is_noticed_at_once(published: tuple[Path, str], tmp_path: Path):
    folder, sha256 = published
    copy = tmp_path / "1"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    segment = MappedSegment(copy, files.read_manifest(copy, sha256))
    with (copy / VECTORS).open("r+b") as file:
        file.truncate(100)
    with pytest.raises(IndexDamaged, match="cut"):
        segment.check_sizes()
