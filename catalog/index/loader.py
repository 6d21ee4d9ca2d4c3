"""Loads the index of a space from its newest undamaged main segment, or else from the vectors in Postgres."""

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
from catalog.geometry.repository import GeometryKey, StoredGeometry
from catalog.index import repository as snapshots
from catalog.index.manifest import read_manifest
from catalog.index.mapped_segment import MappedSegment, VectorSource
from catalog.index.space_index import SpaceIndex
from catalog.tables import IndexSnapshot
from catalog.vectors.repository import feed
from catalog.vectors.repository import stream as vector_stream

FEED_PAGE_SIZE = 2_000  # entries

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedIndex:
    """An index at the end of the feed, and the problems of the segments that could not be used."""

    index: SpaceIndex
    problems: tuple[str, ...] = ()


def refresh_geometries(
    session: Session, loaded: Mapping[GeometryKey, StoredGeometry], current: Mapping[GeometryKey, int]
) -> dict[GeometryKey, StoredGeometry]:
    """The geometries with the `current` ids, by key. Geometries that are `loaded` already are not read again."""
    geometries_by_key = {
        key: loaded[key] if key in loaded and loaded[key].id == geometry_id else geometries.find(session, geometry_id)
        for key, geometry_id in current.items()
    }
    return {key: stored for key, stored in geometries_by_key.items() if stored is not None}


class IndexLoader:
    """Loads indexes, without keeping them. `folder` None: this machine has no main segments. `reader`: the pool from
    which searches read vectors; None: `database`.
    """

    def __init__(self, database: Database, folder: Path | None, reader: Database | None = None) -> None:
        self._database = database
        self._reader = reader or database
        self._folder = folder
        self.damaged_segments = 0

    def load(self, space_id: int, dimension: int) -> LoadedIndex:
        """Load the index of a space, up to the end of the feed. Raises `DatabaseUnavailable`."""
        index, problems = SpaceIndex(dimension), []
        for snapshot in self._snapshots(space_id):
            try:
                index.swap(self.open(snapshot))
                break
            except IndexDamaged as error:
                problems.append(str(error))
        else:
            self._fill(index, space_id)
        self._catch_up(index, space_id)
        with self._database.transaction() as session:
            current = geometries.current_ids(session, [space_id]).get(space_id, {})
            index.geometries = refresh_geometries(session, {}, current)
        return LoadedIndex(index, tuple(problems))

    def open(self, snapshot: IndexSnapshot) -> MappedSegment:
        """Open a main segment. Raises `IndexDamaged`, after marking it broken if its folder exists."""
        assert self._folder is not None
        folder = self._folder / snapshot.path
        try:
            manifest = read_manifest(folder, snapshot.sha256)
            return MappedSegment(folder, manifest, self._source(snapshot.space_id, manifest.dimension))
        except IndexDamaged as error:
            log.error("space %s: %s", snapshot.space_id, error)
            self.damaged_segments += 1
            if folder.is_dir():  # a missing folder may exist on another machine; the sweep checks the workers' folder
                self.report_broken(snapshot.space_id, snapshot.generation, str(error))
            raise

    def _source(self, space_id: int, dimension: int) -> VectorSource:
        def newest(model_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            with self._reader.autocommit() as connection:
                return vector_stream.newest_vectors(connection, space_id, dimension, model_ids)

        return newest

    def report_broken(self, space_id: int, generation: int, reason: str) -> None:
        with self._database.transaction() as session:
            snapshots.mark_broken(session, space_id, generation, reason)

    def _snapshots(self, space_id: int) -> list[IndexSnapshot]:
        if self._folder is None:
            return []
        with self._database.transaction() as session:
            return snapshots.list_newest(session, [space_id]).get(space_id, [])

    def _fill(self, index: SpaceIndex, space_id: int) -> None:
        with self._database.transaction() as session:
            covered_seq = vector_stream.last_seq_of_space(session, space_id)
            for model_ids, block in vector_stream.stream(session, space_id, index.dimension):
                index.fill(model_ids, block, covered_seq)

    def _catch_up(self, index: SpaceIndex, space_id: int) -> None:
        while True:
            with self._database.transaction() as session:
                page = feed.list_space_changes(session, {space_id: index.covered_seq}, FEED_PAGE_SIZE)
            if page:
                index.apply(page)
            if len(page) < FEED_PAGE_SIZE:
                return
