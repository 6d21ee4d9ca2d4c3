from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from catalog.errors import DiskFull, UnsafePath
from workers.hub.download_cache import DownloadCache, stored_files
from workers.process.file_locks import FileLocks

ROOT = Path(__file__).parents[3]
# locks a repo until its input ends
LOCKING_PROGRAM = """
import sys
from pathlib import Path
from workers.hub.download_cache import DownloadCache
from workers.process.file_locks import FileLocks
DownloadCache(Path(sys.argv[1])).lock("o/one", FileLocks())
print("locked", flush=True)
sys.stdin.read()
"""


def put(downloads: DownloadCache, repo: str, name: str, size: int, last_used: float, sha: str = "a" * 40) -> Path:
    blob = downloads.blob(repo, name)
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(b"x" * size)
    os.utime(blob, (last_used, last_used))
    return downloads.link(repo, sha, f"{name}.json", blob)


def names(downloads: DownloadCache) -> set[str]:
    return {file.path.name for file in stored_files(downloads.root)}


@pytest.fixture
def downloads(tmp_path: Path) -> DownloadCache:
    return DownloadCache(tmp_path, budget=1000)


def test_least_recently_used_files_are_evicted_first(downloads: DownloadCache):
    for number in (2, 1, 3):
        put(downloads, f"o/n{number}", f"f{number}", 300, last_used=number)
    downloads.evict_for(200)
    assert names(downloads) == {"f2", "f3"}


def test_file_used_recently_stays(downloads: DownloadCache):
    for number in (1, 2, 3):
        put(downloads, f"o/n{number}", f"f{number}", 300, last_used=number)
    assert downloads.find("o/n1", "a" * 40, "f1.json")
    downloads.evict_for(200)
    assert names(downloads) == {"f1", "f3"}


def test_nothing_is_evicted_while_there_is_room(downloads: DownloadCache):
    put(downloads, "o/one", "f1", 900, last_used=1)
    downloads.evict_for(100)
    assert names(downloads) == {"f1"}


def test_bytes_added_by_this_worker_count(downloads: DownloadCache):
    for number in range(6):
        downloads.evict_for(250)
        put(downloads, "o/one", f"f{number}", 250, last_used=number)
        assert sum(file.size for file in stored_files(downloads.root)) <= 1000


def test_bytes_added_by_another_worker_count(downloads: DownloadCache, tmp_path: Path):
    other = DownloadCache(tmp_path, budget=1000)
    for number in range(6):
        cache = (downloads, other)[number % 2]
        cache.evict_for(250)
        put(cache, "o/one", f"f{number}", 250, last_used=number)
        assert sum(file.size for file in stored_files(tmp_path)) <= 1000


def test_locked_repo_stays_and_others_are_evicted(downloads: DownloadCache):
    put(downloads, "o/one", "old", 500, last_used=1)
    put(downloads, "o/two", "new", 400, last_used=2)
    with FileLocks() as locks:
        downloads.lock("o/one", locks)
        downloads.evict_for(300)
    assert names(downloads) == {"old"}


def test_disk_is_full_when_every_repo_is_locked(downloads: DownloadCache):
    put(downloads, "o/one", "old", 900, last_used=1)
    with FileLocks() as locks:
        downloads.lock("o/one", locks)
        with pytest.raises(DiskFull, match="in use"):
            downloads.evict_for(300)
    downloads.evict_for(300)
    assert names(downloads) == set()


def test_repo_locked_by_another_process_stays_until_it_is_killed(downloads: DownloadCache, tmp_path: Path):
    put(downloads, "o/one", "old", 900, last_used=1)
    command = [sys.executable, "-c", LOCKING_PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(DiskFull):
            downloads.evict_for(300)
        process.kill()
        process.wait()
    downloads.evict_for(300)
    assert names(downloads) == set()


def test_download_beyond_the_budget_is_refused(downloads: DownloadCache):
    put(downloads, "o/one", "old", 10, last_used=1)
    with pytest.raises(DiskFull, match="1,001"):
        downloads.evict_for(1001)
    assert names(downloads) == {"old"}


def test_partial_file_is_evicted(downloads: DownloadCache):
    blobs = downloads.blob("o/one", "f1").parent
    blobs.mkdir(parents=True)
    (blobs / "f1.incomplete").write_bytes(b"x" * 900)
    downloads.evict_for(300)
    assert names(downloads) == set()


def test_link_to_an_evicted_file_is_deleted(downloads: DownloadCache):
    link = put(downloads, "o/one", "old", 500, last_used=1)
    kept = put(downloads, "o/one", "new", 400, last_used=2)
    downloads.evict_for(300)
    assert not link.is_symlink()
    assert kept.is_file()
    assert downloads.find("o/one", "a" * 40, "old.json") is None


def test_folder_of_an_evicted_repo_is_deleted(downloads: DownloadCache, tmp_path: Path):
    put(downloads, "o/one", "old", 900, last_used=1)
    downloads.evict_for(300)
    assert list(tmp_path.iterdir()) == []


def test_evicted_file_can_be_downloaded_again(downloads: DownloadCache):
    put(downloads, "o/one", "old", 900, last_used=1)
    downloads.evict_for(300)
    assert put(downloads, "o/one", "old", 10, last_used=2).read_bytes() == b"x" * 10


@pytest.mark.parametrize("etag", ["../secret", "a/b", "", ".", "..", ".in-use", "a\0", "f.incomplete", "x" * 300])
def test_etag_that_is_not_a_plain_name_is_refused(downloads: DownloadCache, etag: str):
    with pytest.raises(UnsafePath):
        downloads.blob("o/one", etag)
