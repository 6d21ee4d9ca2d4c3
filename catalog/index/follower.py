"""Keeps a process's indexes in step with the change feed."""

from __future__ import annotations

import logging
import threading
from itertools import groupby

from catalog.database import Database
from catalog.errors import DatabaseUnavailable, IndexNotLoaded
from catalog.index.space_index import SpaceIndex
from catalog.repository import vectors

PAGE = 2_000  # entries of the feed read at once

log = logging.getLogger(__name__)


class Follower:
    """One thread that reads the feed every `interval` seconds and hands its entries to the indexes of their spaces.

    Searches go on while the database is away; they answer from what was read last.
    """

    def __init__(self, database: Database, interval: float) -> None:
        self._database = database
        self._interval = interval
        self._indexes: dict[int, SpaceIndex] = {}
        self._seq = 0
        self._loaded = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="index-follower", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    @property
    def loaded(self) -> bool:
        """Whether everything that was in the feed at the start has been read."""
        return self._loaded.is_set()

    def index(self, space_id: int, dimension: int) -> SpaceIndex:
        """The index of a space, empty while nothing is in it. Raises `IndexNotLoaded` before the first full read."""
        if not self.loaded:
            raise IndexNotLoaded("The index is still being read from Postgres; try again in a moment.", retry_after=1)
        found = self._indexes.get(space_id)
        return SpaceIndex(dimension) if found is None else found

    def catch_up(self) -> int:
        """Read the feed to its end; returns how many entries there were."""
        total = 0
        while True:
            with self._database.transaction() as session:
                page = vectors.changes(session, self._seq, PAGE)
            by_space = sorted(page, key=lambda change: (change.space_id, change.seq))
            for space_id, changes in groupby(by_space, key=lambda change: change.space_id):
                self._apply(space_id, list(changes))
            total += len(page)
            if page:
                self._seq = page[-1].seq
            if len(page) < PAGE:
                self._loaded.set()
                return total

    def _apply(self, space_id: int, changes: list[vectors.Change]) -> None:
        if space_id not in self._indexes:
            dimension = next((change.vector.size for change in changes if change.vector is not None), None)
            if dimension is None:
                return  # nothing but departures: there is nothing that they could leave
            self._indexes[space_id] = SpaceIndex(dimension)
        self._indexes[space_id].apply(changes)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval if self.loaded else 0):
            try:
                self.catch_up()
            except DatabaseUnavailable as error:
                log.warning("the change feed cannot be read: %s", error)
                self._stopping.wait(1)
            except Exception:
                log.exception("the change feed could not be applied; reading it anew")
                self._loaded.clear()  # better no answer than one from an index that is half there
                self._indexes, self._seq = {}, 0
                self._stopping.wait(1)
