"""The content hashes of local bases, which take their place where a base on the Hub has a commit."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from catalog.errors import FolderUnreadable
from workers.finetunes.content import content_sha
from workers.process.keyed_locks import KeyedLocks


class ContentHashes:
    """Computes the sha256 of folders, and caches it in `cache` until a file's size or modification time changes."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._locks = KeyedLocks()

    def find(self, folder: Path) -> str:
        """The content sha256 of a folder. Raises `FolderUnreadable`."""
        with self._locks.hold(folder):
            return self._find(folder)

    def _find(self, folder: Path) -> str:
        try:
            state = sorted([path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in folder.iterdir())
        except OSError as error:
            raise FolderUnreadable(f"{folder} cannot be read: {error.strerror or error}.") from error
        cache_file = self._cache / f"{folder.parent.name}--{folder.name}.json"
        try:
            cached = json.loads(cache_file.read_text(encoding="utf-8"))
            if cached["files"] == state:
                return cached["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # no cache entry, or a damaged one
        sha = content_sha(folder)
        _write_cache_file(cache_file, {"files": state, "sha256": sha})
        return sha


def _write_cache_file(cache_file: Path, content: dict[str, Any]) -> None:
    temporary = cache_file.with_name(f"{cache_file.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        cache_file.parent.mkdir(exist_ok=True)
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(cache_file)
    except OSError:
        pass  # the folder may be read-only; the hash is then computed each time
