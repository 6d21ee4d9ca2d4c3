from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from catalog.errors import IndexDamaged
from catalog.index import manifest as index_manifest
from catalog.index import mapped_segment, training
from catalog.index.manifest import IDS_FILE, LISTS_FILE, FileRecord, Manifest
from catalog.index.mapped_segment import MappedSegment, VectorSource
from catalog.index.row_bitmap import RowBitmap
from catalog.index.space_index import SpaceIndex

FIRST_ID = 1_000


@pytest.fixture(scope="module")
def published(pool: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A segment of the pool, whose models have the ids 1,000, 1,002, ..."""
    trained = training.train(pool)
    with index_manifest.build_folder(tmp_path_factory.mktemp("space")) as work:
        trained.lists.write(work / LISTS_FILE)
        (FIRST_ID + 2 * np.arange(len(pool))).tofile(work / IDS_FILE)
        records = {name: FileRecord.from_file(work / name) for name in (LISTS_FILE, IDS_FILE)}
        manifest = Manifest("a" * 64, 1, 7, *pool.shape, trained.lists.count, trained.tuned, records)
        return index_manifest.publish(work, manifest)


@pytest.fixture(scope="module")
def segment(published: tuple[Path, str], pool: np.ndarray) -> MappedSegment:
    return opened(*published, vector_source(pool))


def opened(folder: Path, sha256: str, source: VectorSource) -> MappedSegment:
    return MappedSegment(folder, index_manifest.read_manifest(folder, sha256), source)


def vector_source(pool: np.ndarray, *, without: tuple[int, ...] = ()) -> VectorSource:
    """A source of the pool's vectors, three times as long and in reverse order, without those of some rows."""

    def source(model_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = (model_ids - FIRST_ID) // 2
        stored = ~np.isin(rows, without)
        return model_ids[stored][::-1], 3 * pool[rows[stored]][::-1]

    return source


def copy_folder(folder: Path, target: Path) -> Path:
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def truth(pool: np.ndarray, query: np.ndarray, mask: np.ndarray, k: int) -> list[int]:
    rows = np.flatnonzero(mask)
    return rows[np.argsort(-(pool[rows] @ query), kind="stable")][:k].tolist()


def recall(segment: MappedSegment, pool: np.ndarray, mask: np.ndarray, k: int, count: int = 60) -> float:
    rows = RowBitmap.from_mask(mask)
    queries = pool[:: len(pool) // count]
    shared = [len(set(segment.search(query, k, rows).rows) & set(truth(pool, query, mask, k))) for query in queries]
    return float(np.mean(shared)) / k


def test_search_returns_the_nearest_with_their_cosines(segment: MappedSegment, pool: np.ndarray):
    assert recall(segment, pool, np.ones(len(pool), bool), 10) >= 0.99
    hits = segment.search(pool[5], 20, None)
    assert hits.rows[0] == 5
    np.testing.assert_allclose(hits.cosines, pool[hits.rows].astype(np.float64) @ pool[5], atol=1e-6)
    assert not hits.exact


@pytest.mark.parametrize("k", [1, 50, 500, 1_200, 1_500, 5_000])
def test_search_returns_k_rows_or_all(segment: MappedSegment, pool: np.ndarray, k: int):
    hits = segment.search(pool[0], k, None)
    assert len(set(hits.rows.tolist())) == min(k, len(pool))
    assert (np.diff(hits.cosines) <= 0).all()


@pytest.mark.parametrize("share", [0.5, 0.2, 0.05])
def test_recall_holds_with_a_filter(segment: MappedSegment, pool: np.ndarray, share: float):
    mask = np.random.default_rng(9).random(len(pool)) < share
    assert recall(segment, pool, mask, 10) >= 0.98


def test_recall_holds_when_only_far_rows_pass(segment: MappedSegment, pool: np.ndarray):
    far = pool @ pool[0] < np.quantile(pool @ pool[0], 0.3)
    assert recall(segment, pool, far, 10) >= 0.95
    hits = segment.search(pool[0], 10, RowBitmap.from_mask(far))
    assert len(set(hits.rows.tolist()) & set(truth(pool, pool[0], far, 10))) >= 8


def test_narrow_filter_is_searched_exactly(segment: MappedSegment, pool: np.ndarray):
    mask = np.zeros(len(pool), bool)
    mask[[3, 1_000, 1_499]] = True
    hits = segment.search(pool[3], 10, RowBitmap.from_mask(mask))
    assert hits.rows.tolist() == truth(pool, pool[3], mask, 10)
    assert hits.exact


def test_filter_reaches_rows_in_far_lists(segment: MappedSegment, pool: np.ndarray):
    far = np.argsort(pool @ pool[0])[:140]  # not in the lists nearest to the query
    hits = segment.search(pool[0], 30, RowBitmap.from_mask(np.isin(np.arange(len(pool)), far)))
    assert len(hits.rows) == 30
    assert not hits.exact


def test_removed_models_are_replaced_by_the_next_nearest(published: tuple[Path, str], pool: np.ndarray):
    nearest = truth(pool, pool[5], np.ones(len(pool), bool), 100)
    segment = opened(*published, vector_source(pool, without=tuple(nearest[:60])))
    hits = segment.search(pool[5], 10, None)
    assert len(hits.rows) == 10
    assert not set(hits.rows.tolist()) & set(nearest[:60])
    assert not segment.vectors(np.array(nearest[:1])).any()


def test_filter_that_passes_nothing_has_no_hits(segment: MappedSegment, pool: np.ndarray):
    assert segment.search(pool[0], 10, RowBitmap.from_mask(np.zeros(len(pool), bool))).rows.size == 0


def test_rows_of_models_and_vectors_of_rows(segment: MappedSegment, pool: np.ndarray):
    model_ids = np.array([FIRST_ID, FIRST_ID + 1, FIRST_ID + 4, 5, 10**9])
    assert segment.rows_of(model_ids).tolist() == [0, 2]
    np.testing.assert_allclose(segment.vectors(np.array([2, 0, 1])), pool[[2, 0, 1]], atol=1e-6)


def test_memory_is_the_size_of_the_mapped_lists(segment: MappedSegment):
    assert segment.memory == (segment.folder / LISTS_FILE).stat().st_size


def test_removed_generation_stays_searchable(published: tuple[Path, str], pool: np.ndarray, tmp_path: Path):
    copy = copy_folder(published[0], tmp_path / "1")
    segment = opened(copy, published[1], vector_source(pool))
    for path in copy.iterdir():
        path.unlink()
    copy.rmdir()
    gc.collect()
    segment.check_sizes()
    assert segment.search(pool[7], 5, None).rows[0] == 7


@pytest.mark.parametrize("name", [LISTS_FILE, IDS_FILE])
def test_damage_of_the_same_size_is_detected(published: tuple[Path, str], pool: np.ndarray, tmp_path: Path, name: str):
    copy = copy_folder(published[0], tmp_path / "1")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 0x40
    (copy / name).write_bytes(content)
    with pytest.raises(IndexDamaged, match=name):
        opened(copy, published[1], vector_source(pool))


def test_truncated_file_is_detected_by_its_size(published: tuple[Path, str], pool: np.ndarray, tmp_path: Path):
    copy = copy_folder(published[0], tmp_path / "1")
    segment = opened(copy, published[1], vector_source(pool))
    with (copy / IDS_FILE).open("r+b") as file:
        file.truncate(100)
    with pytest.raises(IndexDamaged, match="truncated"):
        segment.check_sizes()


def test_candidates_are_read_in_blocks_and_only_once(
    published: tuple[Path, str], pool: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mapped_segment, "BLOCK_BYTES", 4 * pool.shape[1] * 7)
    read: list[np.ndarray] = []
    source = vector_source(pool)

    def counting(model_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        read.append(model_ids)
        return source(model_ids)

    index = SpaceIndex(pool.shape[1])
    index.swap(opened(*published, counting))
    hits = index.search(pool[5], 40)

    vectors = hits.select(np.arange(20), hits.cosines[:20]).vectors()

    assert max(map(len, read)) == 7
    ids = np.concatenate(read)
    assert len(ids) == len(set(ids.tolist()))  # none is read again for its vector
    np.testing.assert_allclose(vectors, pool[(hits.model_ids[:20] - FIRST_ID) // 2], atol=1e-6)
    whole = opened(*published, source).search(pool[5], 40, None)
    np.testing.assert_array_equal(FIRST_ID + 2 * whole.rows, hits.model_ids)
