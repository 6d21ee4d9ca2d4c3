"""Temporary folders for one piece of work. Those of a killed process are deleted by the next worker."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workers.process.file_locks import acquire_lock, try_lock

FOLDER_PREFIX = "deltadex-work-"
LOCK_NAME = "in-use"  # locked as long as the folder is needed


@contextmanager
def scratch() -> Iterator[Path]:
    """Create an empty folder that is deleted at the end of the context."""
    with tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX) as top:
        descriptor = acquire_lock(Path(top) / LOCK_NAME, exclusive=True)
        try:
            folder = Path(top) / "files"
            folder.mkdir()
            yield folder
        finally:
            os.close(descriptor)


def delete_abandoned() -> int:
    """Delete the folders of killed processes, which are those without a lock. Returns how many were deleted."""
    return sum(_delete_unlocked(top) for top in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"))


def _delete_unlocked(top: Path) -> bool:
    try:  # a new folder has no lock file yet
        descriptor = try_lock(top / LOCK_NAME, exclusive=True) if (top / LOCK_NAME).exists() else None
    except OSError:  # the folder belongs to another user
        return False
    if descriptor is None:
        return False
    shutil.rmtree(top, ignore_errors=True)
    os.close(descriptor)
    return not top.exists()
