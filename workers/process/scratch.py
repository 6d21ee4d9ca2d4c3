"""Folders that go with the work they serve, also where its process is killed: the next worker deletes what it left."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workers.process.file_locks import try_lock, wait_for

PREFIX = "deltadex-work-"
LOCK = "in-use"  # held as long as the folder is needed


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder for as long as it lasts."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as top:
        held = wait_for(Path(top) / LOCK, exclusive=True)
        try:
            folder = Path(top) / "files"
            folder.mkdir()
            yield folder
        finally:
            os.close(held)


def sweep() -> int:
    """Delete the folders of processes that are no more, of which nobody holds the lock. Returns how many."""
    return sum(_swept(top) for top in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))


def _swept(top: Path) -> bool:
    try:
        held = try_lock(top / LOCK, exclusive=True) if (top / LOCK).exists() else None  # one may be made just now
    except OSError:  # another user's
        return False
    if held is None:
        return False
    shutil.rmtree(top, ignore_errors=True)
    os.close(held)
    return not top.exists()
