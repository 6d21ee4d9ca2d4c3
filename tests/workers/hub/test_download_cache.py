from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from catalog.errors import DiskFull, UnsafePath
from workers.hub.download_cache import Downloads, stored
from workers.process.file_locks import Hold

ROOT = Path(__file__).parents[3]
# holds a repo until its input ends
HOLDER = """
import sys
from pathlib import Path
from workers.hub.download_cache import Downloads
from workers.process.file_locks import Hold
Downloads(Path(sys.argv[1])).keep("o/one", Hold())
print("held", flush=True)
sys.stdin.read()
"""


def put(downloads: Downloads, repo: str, name: str, size: int, used: float, sha: str = "a" * 40) -> Path:
    blob = downloads.blob(repo, name)
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(b"x" * size)
    os.utime(blob, (used, used))
    return downloads.link(repo, sha, f"{name}.json", blob)


def names(downloads: Downloads) -> set[str]:
    return {each.path.name for each in stored(downloads.top)}


@pytest.fixture
def downloads(tmp_path: Path) -> Downloads:
    return Downloads(tmp_path, budget=1000)


def test_the_least_recently_used_files_leave_first(downloads: Downloads):
    for number in (2, 1, 3):
        put(downloads, f"o/n{number}", f"f{number}", 300, used=number)
    downloads.make_room(200)
    assert names(downloads) == {"f2", "f3"}


def test_what_was_asked_for_lately_stays(downloads: Downloads):
    for number in (1, 2, 3):
        put(downloads, f"o/n{number}", f"f{number}", 300, used=number)
    assert downloads.find("o/n1", "a" * 40, "f1.json")
    downloads.make_room(200)
    assert names(downloads) == {"f1", "f3"}


def test_nothing_leaves_while_there_is_room(downloads: Downloads):
    put(downloads, "o/one", "f1", 900, used=1)
    downloads.make_room(100)
    assert names(downloads) == {"f1"}


def test_what_this_worker_adds_is_counted(downloads: Downloads):
    for number in range(6):
        downloads.make_room(250)
        put(downloads, "o/one", f"f{number}", 250, used=number)
        assert sum(each.size for each in stored(downloads.top)) <= 1000


def test_what_another_worker_added_is_counted(downloads: Downloads, tmp_path: Path):
    other = Downloads(tmp_path, budget=1000)
    for number in range(6):
        each = (downloads, other)[number % 2]
        each.make_room(250)
        put(each, "o/one", f"f{number}", 250, used=number)
        assert sum(each.size for each in stored(tmp_path)) <= 1000


def test_files_in_use_stay_and_others_go_for_them(downloads: Downloads):
    put(downloads, "o/one", "old", 500, used=1)
    put(downloads, "o/two", "new", 400, used=2)
    with Hold() as hold:
        downloads.keep("o/one", hold)
        downloads.make_room(300)
    assert names(downloads) == {"old"}


def test_where_all_is_in_use_the_disk_is_full(downloads: Downloads):
    put(downloads, "o/one", "old", 900, used=1)
    with Hold() as hold:
        downloads.keep("o/one", hold)
        with pytest.raises(DiskFull, match="in use"):
            downloads.make_room(300)
    downloads.make_room(300)
    assert names(downloads) == set()


def test_files_that_another_process_uses_stay_until_it_is_killed(downloads: Downloads, tmp_path: Path):
    put(downloads, "o/one", "old", 900, used=1)
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(DiskFull):
            downloads.make_room(300)
        holder.kill()
        holder.wait()
    downloads.make_room(300)
    assert names(downloads) == set()


def test_more_than_the_budget_is_never_begun(downloads: Downloads):
    put(downloads, "o/one", "old", 10, used=1)
    with pytest.raises(DiskFull, match="1,001"):
        downloads.make_room(1001)
    assert names(downloads) == {"old"}


def test_a_partial_file_that_nobody_continues_leaves_too(downloads: Downloads):
    blobs = downloads.blob("o/one", "f1").parent
    blobs.mkdir(parents=True)
    (blobs / "f1.incomplete").write_bytes(b"x" * 900)
    downloads.make_room(300)
    assert names(downloads) == set()


def test_a_commit_does_not_name_a_file_that_left(downloads: Downloads):
    link = put(downloads, "o/one", "old", 500, used=1)
    kept = put(downloads, "o/one", "new", 400, used=2)
    downloads.make_room(300)
    assert not link.is_symlink()
    assert kept.is_file()
    assert downloads.find("o/one", "a" * 40, "old.json") is None


def test_a_repo_of_which_nothing_is_left_leaves_no_folder(downloads: Downloads, tmp_path: Path):
    put(downloads, "o/one", "old", 900, used=1)
    downloads.make_room(300)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_left_and_came_back_has_its_name_again(downloads: Downloads):
    put(downloads, "o/one", "old", 900, used=1)
    downloads.make_room(300)
    assert put(downloads, "o/one", "old", 10, used=2).read_bytes() == b"x" * 10


@pytest.mark.parametrize("etag", ["../secret", "a/b", "", ".", "..", ".in-use", "a\0", "f.incomplete", "x" * 300])
def test_an_etag_that_is_no_plain_name_is_refused(downloads: Downloads, etag: str):
    with pytest.raises(UnsafePath):
        downloads.blob("o/one", etag)
