from __future__ import annotations

from pathlib import Path

import pytest

from catalog.database import Database
from catalog.removals import service as removal_service
from catalog.removals import spaces as space_service
from tests.support import catalog as entries
from tests.support.catalog import SPACE
from workers.hub.download_cache import DownloadCache
from workers.maintenance import file_remover
from workers.maintenance.file_remover import FileRemover
from workers.process.file_locks import FileLocks


@pytest.fixture
def downloads(tmp_path: Path) -> DownloadCache:
    """The downloads of two models."""
    cache = DownloadCache(tmp_path / "downloads")
    for name in ("one", "two"):
        blob = cache.blob(f"owner/{name}", "etag")
        blob.parent.mkdir(parents=True)
        blob.write_bytes(b"weights")
        cache.link(f"owner/{name}", "a" * 40, "adapter.safetensors", blob)
    return cache


@pytest.fixture
def remover(database: Database, downloads: DownloadCache, tmp_path: Path) -> FileRemover:
    for name in ("one", "two"):
        entries.put(database, f"owner/{name}", [1, 2])
    return FileRemover(database, downloads.root, tmp_path / "index")


def stored(downloads: DownloadCache) -> set[str]:
    return {name for name in ("one", "two") if downloads.find(f"owner/{name}", "a" * 40, "adapter.safetensors")}


def test_downloads_of_a_removed_model_are_deleted(remover: FileRemover, downloads: DownloadCache, database: Database):
    remover.step()
    assert stored(downloads) == {"one", "two"}

    removal_service.remove(database, "owner/one")
    remover.step()

    assert stored(downloads) == {"two"}


def test_all_removals_are_gone_through_in_pages(
    remover: FileRemover, downloads: DownloadCache, database: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(file_remover, "PAGE_SIZE", 1)
    for name in ("one", "two"):
        removal_service.remove(database, f"owner/{name}")

    assert remover.step()
    assert stored(downloads) == {"two"}
    remover.step()
    assert stored(downloads) == set()


def test_downloads_in_use_are_deleted_once_they_are_released(
    remover: FileRemover, downloads: DownloadCache, database: Database
):
    removal_service.remove(database, "owner/one")
    with FileLocks() as locks:
        downloads.lock("owner/one", locks)
        remover.step()
        assert stored(downloads) == {"one", "two"}

    remover.step()

    assert stored(downloads) == {"two"}


def test_index_of_a_dropped_space_is_deleted_and_other_folders_stay(
    remover: FileRemover, database: Database, tmp_path: Path
):
    for folder in (SPACE.key, "notes"):
        (tmp_path / "index" / folder / "1").mkdir(parents=True)
    remover.step()
    assert (tmp_path / "index" / SPACE.key / "1").is_dir()

    space_service.drop(database, SPACE.key, force=True)
    remover.step()

    assert [folder.name for folder in (tmp_path / "index").iterdir()] == ["notes"]
