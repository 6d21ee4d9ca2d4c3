"""The folder of downloads: where a file lies, what is in use, and what leaves when there is no more room.

The layout is the Hub client's own: `models--OWNER--NAME/blobs/ETAG` holds a file once, and
`snapshots/COMMIT/PATH` links to it. Several workers may share the folder.
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
from workers.process.file_locks import Hold, try_lock

PARTIAL = ".incomplete"  # ends the name of a file that is not all there yet
LOCK = ".in-use"
RECOUNT = 0.02  # share of the budget that may be added before the folder is counted anew
SPARE = 0.1  # share of the budget that is freed beyond what is needed, so that it is not done for each file

_ETAG = re.compile(r"[\w-][\w.-]{0,199}")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
    """A file in a `blobs` folder; `used` is when it was last asked for."""

    path: Path
    size: int
    used: float


class Downloads:
    """`budget` is in bytes; None: as much as the disk has. Files that are not in use are evicted, the least recently
    used first. Downloads under way in other workers count by what has arrived, so these may go over the budget for
    as long as they run.
    """

    def __init__(self, top: Path, budget: int | None = None) -> None:
        self.top = top
        self._budget = budget
        self._used: float | None = None  # bytes when last counted
        self._added = 0  # bytes since
        self._mutex = threading.Lock()

    def keep(self, repo_id: str, hold: Hold) -> None:
        """Nothing of the repo is evicted before `hold` is released."""
        hold.take(self._repo(repo_id) / LOCK)

    def find(self, repo_id: str, sha: str, path: str) -> Path | None:
        """The file of a commit where it lies here, marked as used."""
        link = self.link_of(repo_id, sha, path)
        if not link.is_file():
            return None
        os.utime(link)  # the blob's: a link is followed
        return link

    def blob(self, repo_id: str, etag: str) -> Path:
        """Where the file with this ETag is or will be. Raises `UnsafePath`: the ETag is whatever the server sent."""
        if not _ETAG.fullmatch(etag) or etag.endswith(PARTIAL):
            raise UnsafePath(f"The ETag {etag[:80]!r} of a file of {repo_id} leads out of the downloads folder.")
        return self._repo(repo_id) / "blobs" / etag

    def link_of(self, repo_id: str, sha: str, path: str) -> Path:
        return self._repo(repo_id) / "snapshots" / sha / path

    def link(self, repo_id: str, sha: str, path: str, blob: Path) -> Path:
        """Give a stored file its name in a commit."""
        link = self.link_of(repo_id, sha, path)
        link.parent.mkdir(parents=True, exist_ok=True)
        new = link.with_name(f".{link.name}.{os.getpid()}.{threading.get_ident()}")
        new.unlink(missing_ok=True)
        new.symlink_to(os.path.relpath(blob, link.parent))
        new.replace(link)
        return link

    def make_room(self, size: int) -> None:
        """Evict until so many bytes more have room. Raises `DiskFull`."""
        if size <= 0:
            return
        with self._mutex:
            self.top.mkdir(parents=True, exist_ok=True)
            if self._budget is not None and size > self._budget:
                raise DiskFull(f"{size:,} bytes exceed the {self._budget:,} that downloads may take.")
            missing = self._missing(size)
            if missing > 0:
                freed = evict(self.top, missing + SPARE * (self._budget or 0))
                self._used = None
                if freed < missing:
                    raise DiskFull(
                        f"{size:,} bytes are to be downloaded, {missing:,.0f} more than there is room for, "
                        "and all other downloads are in use."
                    )
            self._added += size

    def _missing(self, size: int) -> float:
        """Bytes to be freed first."""
        missing = float(size - shutil.disk_usage(self.top).free)
        if self._budget is None:
            return missing
        known = None if self._used is None else self._used + self._added
        if known is None or known + size > self._budget or self._added > RECOUNT * self._budget:
            self._used, self._added = sum(each.size for each in stored(self.top)), 0
            known = self._used
        return max(missing, known + size - self._budget)

    def _repo(self, repo_id: str) -> Path:
        return self.top / repo_folder_name(repo_id=repo_id, repo_type="model")


def stored(top: Path) -> Iterator[Stored]:
    """Every file of the folder, whole or partial."""
    for repo in top.glob("models--*"):
        try:
            with os.scandir(repo / "blobs") as blobs:
                for each in blobs:
                    state = each.stat(follow_symlinks=False)
                    yield Stored(Path(each.path), state.st_size, state.st_mtime)
        except FileNotFoundError:
            continue  # evicted or completed by another worker meanwhile


def evict(top: Path, size: float) -> int:
    """Delete files that nobody uses until `size` bytes are free, the least recently used first. Returns the bytes."""
    freed, touched = 0, set()
    for each in sorted(stored(top), key=lambda each: each.used):
        if freed >= size:
            break
        if _delete(each.path):
            freed += each.size
            touched.add(each.path.parents[1])
    for repo in touched:
        _tidy(repo)
    log.info("evicted %s bytes of %s repos", freed, len(touched))
    return freed


def _delete(blob: Path) -> bool:
    lock = try_lock(blob.parents[1] / LOCK, exclusive=True)
    if lock is None:
        return False
    try:
        blob.unlink()
    except FileNotFoundError:
        return False
    finally:
        os.close(lock)
    return True


def _tidy(repo: Path) -> None:
    """Remove the links to files that are gone, and a repo of which nothing is left."""
    lock = try_lock(repo / LOCK, exclusive=True)
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
