"""The folder of downloads: paths of files, locks on repos in use, and eviction of the least recently used files.

The layout is that of `huggingface_hub`: `models--OWNER--NAME/blobs/ETAG` is the file, and `snapshots/COMMIT/PATH`
links to it. Several workers may share the folder. `huggingface_hub` has neither a budget nor locks on files in use
(`tests/workers/hub/test_pinned_client.py`).
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.file_download import repo_folder_name

from catalog.errors import DiskFull, UnsafePath
from workers.process.file_locks import FileLocks, try_lock

PARTIAL_SUFFIX = ".incomplete"  # of a file whose download has not finished
LOCK_NAME = ".in-use"
RECOUNT_SHARE = 0.02  # of the budget; the folder is counted again after this many bytes were added
SPARE_SHARE = 0.1  # of the budget; evicted in addition, so that not every download has to evict

_ETAG = re.compile(r"[\w-][\w.-]{0,199}")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredFile:
    """A file in a `blobs` folder; `last_used` is a Unix time."""

    path: Path
    size: int
    last_used: float


class DownloadCache:
    """The downloads in the folder `root`, limited to `budget` bytes (None: the free disk space).

    Files that are not in use are evicted, the least recently used first. A running download of another worker counts
    with the bytes that have arrived, so the total may exceed the budget while it runs.
    """

    def __init__(self, root: Path, budget: int | None = None) -> None:
        self.root = root
        self._budget = budget
        self._counted_bytes: float | None = None  # in the folder, when last counted
        self._added_bytes = 0  # since the count
        self._lock = threading.Lock()

    def lock(self, repo_id: str, locks: FileLocks) -> None:
        """Keep the repo's files from being evicted until `locks` are released."""
        locks.acquire(self._repo(repo_id) / LOCK_NAME)

    def find(self, repo_id: str, sha: str, path: str) -> Path | None:
        """The file of a commit if it was downloaded; its time of last use is set to now."""
        link = self.link_of(repo_id, sha, path)
        if not link.is_file():
            return None
        os.utime(link)  # of the blob: the link is followed
        return link

    def blob(self, repo_id: str, etag: str) -> Path:
        """The path of the file with this ETag. Raises `UnsafePath`: the ETag comes from the server."""
        if not _ETAG.fullmatch(etag) or etag.endswith(PARTIAL_SUFFIX):
            raise UnsafePath(f"The ETag {etag[:80]!r} of a file of {repo_id} leads out of the downloads folder.")
        return self._repo(repo_id) / "blobs" / etag

    def link_of(self, repo_id: str, sha: str, path: str) -> Path:
        return self._repo(repo_id) / "snapshots" / sha / path

    def link(self, repo_id: str, sha: str, path: str, blob: Path) -> Path:
        """Link a path of a commit to a stored file."""
        link = self.link_of(repo_id, sha, path)
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = link.with_name(f".{link.name}.{os.getpid()}.{threading.get_ident()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.path.relpath(blob, link.parent))
        temporary.replace(link)
        return link

    def evict_for(self, size: int) -> None:
        """Evict files until `size` more bytes fit. Raises `DiskFull`."""
        if size <= 0:
            return
        with self._lock:
            self.root.mkdir(parents=True, exist_ok=True)
            if self._budget is not None and size > self._budget:
                raise DiskFull(f"{size:,} bytes exceed the budget of {self._budget:,} bytes for downloads.")
            missing = self._missing(size)
            if missing > 0:
                freed = evict(self.root, missing + SPARE_SHARE * (self._budget or 0))
                self._counted_bytes = None
                if freed < missing:
                    raise DiskFull(
                        f"A download of {size:,} bytes needs {missing:,.0f} more bytes than can be freed: "
                        "all other downloads are in use."
                    )
            self._added_bytes += size

    def _missing(self, size: int) -> float:
        """The bytes to evict so that `size` more bytes fit (not positive: none)."""
        missing = float(size - shutil.disk_usage(self.root).free)
        if self._budget is None:
            return missing
        total = None if self._counted_bytes is None else self._counted_bytes + self._added_bytes
        if total is None or total + size > self._budget or self._added_bytes > RECOUNT_SHARE * self._budget:
            self._counted_bytes, self._added_bytes = sum(file.size for file in stored_files(self.root)), 0
            total = self._counted_bytes
        return max(missing, total + size - self._budget)

    def _repo(self, repo_id: str) -> Path:
        return self.root / repo_folder_name(repo_id=repo_id, repo_type="model")


def stored_files(root: Path) -> Iterator[StoredFile]:
    """Every file in the folder, complete or partial."""
    for repo in root.glob("models--*"):
        try:
            with os.scandir(repo / "blobs") as blobs:
                for file in blobs:
                    state = file.stat(follow_symlinks=False)
                    yield StoredFile(Path(file.path), state.st_size, state.st_mtime)
        except FileNotFoundError:
            continue  # evicted or completed by another worker


def delete_repo(root: Path, repo_id: str) -> bool:
    """Delete the folder of a repo with all its files. False if they are in use."""
    folder = root / repo_folder_name(repo_id=repo_id, repo_type="model")
    if not folder.is_dir():
        return True
    lock = try_lock(folder / LOCK_NAME, exclusive=True)
    if lock is None:
        return False
    try:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
    return True


def evict(root: Path, size: float) -> int:
    """Delete at least `size` bytes of files that are not in use, least recently used first; returns the bytes."""
    freed, repos = 0, set()
    for file in sorted(stored_files(root), key=lambda file: file.last_used):
        if freed >= size:
            break
        if _delete(file.path):
            freed += file.size
            repos.add(file.path.parents[1])
    for repo in repos:
        _delete_dangling_links(repo)
    log.info("evicted %s bytes of %s repos", freed, len(repos))
    return freed


def _delete(blob: Path) -> bool:
    lock = try_lock(blob.parents[1] / LOCK_NAME, exclusive=True)
    if lock is None:
        return False
    try:
        blob.unlink()
    except FileNotFoundError:
        return False
    finally:
        os.close(lock)
    return True


def _delete_dangling_links(repo: Path) -> None:
    """Delete links to files that no longer exist, and the folder of a repo without files."""
    lock = try_lock(repo / LOCK_NAME, exclusive=True)
    if lock is None:
        return
    try:
        if not any((repo / "blobs").iterdir()):
            shutil.rmtree(repo, ignore_errors=True)
            return
        for link in [*(repo / "snapshots").rglob("*")]:
            if link.is_symlink() and not link.exists():
                link.unlink(missing_ok=True)
    finally:
        os.close(lock)
