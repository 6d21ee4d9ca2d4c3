"""A thread of each worker that deletes this machine's files of removed models and dropped spaces."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from catalog.database import Database
from catalog.removals import repository as removals
from catalog.threads.periodic_thread import PeriodicThread
from workers.hub.download_cache import delete_repo

INTERVAL = 5.0  # seconds
PAGE_SIZE = 1_000  # removed models
_SPACE_KEY = re.compile(r"[0-9a-f]{64}")

log = logging.getLogger(__name__)


class FileRemover:
    """Deletes the downloads of removed models, and the indexes of dropped spaces.

    All removals are gone through once when the worker starts, and later ones as they happen. Files that are in use are
    deleted at a later step. Files of local folders are the user's own, and stay.
    """

    def __init__(self, database: Database, downloads: Path, indexes: Path) -> None:
        self._database = database
        self._downloads = downloads
        self._indexes = indexes
        self._seq = 0  # of the last removal that was gone through
        self._in_use: set[str] = set()
        self._thread = PeriodicThread("file-remover", self.step, INTERVAL)

    def start(self) -> None:
        self._thread.start()

    def request_stop(self) -> None:
        self._thread.request_stop()

    def stop(self) -> None:
        self._thread.stop()

    def step(self) -> bool:
        """Delete files of a page of removals. True if there are more."""
        indexes = [*self._indexes.iterdir()] if self._indexes.is_dir() else []  # before the spaces that exist are read
        with self._database.transaction() as session:
            page = removals.list_files_to_delete(session, self._seq, PAGE_SIZE)
            keys = removals.list_space_keys(session)
        pending = {repo_id for _, repo_id in page} | self._in_use
        self._in_use = {repo_id for repo_id in sorted(pending) if not delete_repo(self._downloads, repo_id)}
        self._seq = page[-1][0] if page else self._seq
        _delete_dropped(indexes, keys)
        return len(page) == PAGE_SIZE


def _delete_dropped(indexes: Iterable[Path], keys: set[str]) -> None:
    """Delete the index folders of spaces that do not exist."""
    for folder in indexes:
        if _SPACE_KEY.fullmatch(folder.name) and folder.name not in keys:
            log.info("deleting the index of the dropped space %s", folder.name)
            shutil.rmtree(folder, ignore_errors=True)
