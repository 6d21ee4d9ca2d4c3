"""How a process comes by a space's index: the newest sound main segment, or else the vectors in Postgres."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy.orm import Session

from catalog.database import Database
from catalog.errors import IndexDamaged
from catalog.geometry import repository as geometries
from catalog.geometry.repository import Fitted, Place
from catalog.index import repository as snapshots
from catalog.index.manifest import read_manifest
from catalog.index.mapped_segment import MappedSegment, VectorSource
from catalog.index.space_index import SpaceIndex
from catalog.tables import IndexSnapshot
from catalog.vectors.repository import feed
from catalog.vectors.repository import stream as vector_stream

PAGE = 2_000  # entries of the feed read at once

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """An index at the end of the feed, and what was found wrong on the way."""

    index: SpaceIndex
    problems: tuple[str, ...] = ()


def brought_up(session: Session, known: Mapping[Place, Fitted], numbers: Mapping[Place, int]) -> dict[Place, Fitted]:
    """The geometries of those numbers, by place; what is known already is not read again."""
    found = {
        place: known[place] if place in known and known[place].id == number else geometries.get(session, number)
        for place, number in numbers.items()
    }
    return {place: fitted for place, fitted in found.items() if fitted is not None}


class Loader:
    """Reads indexes; keeps nothing. `folder` None: there are no main segments here."""

    def __init__(self, database: Database, folder: Path | None) -> None:
        self._database = database
        self._folder = folder
        self.damages = 0  # segments found damaged

    def load(self, space_id: int, dimension: int) -> Loaded:
        """The index of a space, up to date. Raises `DatabaseUnavailable`."""
        index, problems = SpaceIndex(dimension), []
        for snapshot in self._sound(space_id):
            try:
                index.swap(self.open(snapshot))
                break
            except IndexDamaged as error:
                problems.append(str(error))
        else:
            self._fill(index, space_id)
        self._catch_up(index, space_id)
        with self._database.transaction() as session:
            index.geometries = brought_up(session, {}, geometries.newest(session, [space_id]).get(space_id, {}))
        return Loaded(index, tuple(problems))

    def open(self, snapshot: IndexSnapshot) -> MappedSegment:
        """Raises `IndexDamaged`, and has the segment made anew if it is there and wrong."""
        assert self._folder is not None
        folder = self._folder / snapshot.path
        try:
            manifest = read_manifest(folder, snapshot.sha256)
            return MappedSegment(folder, manifest, self._source(snapshot.space_id, manifest.dimension))
        except IndexDamaged as error:
            log.error("space %s: %s", snapshot.space_id, error)
            self.damages += 1
            if folder.is_dir():  # if not, another machine may have it; the workers look after their own
                self.report_broken(snapshot.space_id, snapshot.generation, str(error))
            raise

    def _source(self, space_id: int, dimension: int) -> VectorSource:
        def newest(model_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            with self._database.reading() as connection:
                return vector_stream.newest_of(connection, space_id, dimension, model_ids)

        return newest

    def report_broken(self, space_id: int, generation: int, reason: str) -> None:
        with self._database.transaction() as session:
            snapshots.mark_broken(session, space_id, generation, reason)

    def _sound(self, space_id: int) -> list[IndexSnapshot]:
        if self._folder is None:
            return []
        with self._database.transaction() as session:
            return snapshots.newest(session, [space_id]).get(space_id, [])

    def _fill(self, index: SpaceIndex, space_id: int) -> None:
        with self._database.transaction() as session:
            covered_seq = vector_stream.covered(session, space_id)
            for model_ids, block in vector_stream.stream(session, space_id, index.dimension):
                index.fill(model_ids, block, covered_seq)

    def _catch_up(self, index: SpaceIndex, space_id: int) -> None:
        while True:
            with self._database.transaction() as session:
                page = feed.changes_of(session, {space_id: index.covered_seq}, PAGE)
            if page:
                index.apply(page)
            if len(page) < PAGE:
                return
