"""Builds the map of a space and publishes it, in a separate process (`workers.maintenance map`)."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catalog.database import Database
from catalog.errors import CatalogError
from catalog.maps import repository as maps
from catalog.maps.layout import lay_out
from catalog.maps.repository import MapData
from catalog.settings import settings
from catalog.tables import Map, SpaceRow
from catalog.vectors.repository import stream as vector_stream
from catalog.vectors.unit_vectors import load_unit_vectors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MapRunner:
    """Builds maps, at most one per space at a time across all machines.

    Vectors that do not fit into memory go to a temporary file in `folder`.
    """

    database: Database
    folder: Path

    def run(self, space_id: int) -> int | None:
        """Build the map of a space and return its id. None if another process is building it.

        Errors are stored and raised again; `maps.list_refreshable` delays the next attempt.
        """
        with self.database.transaction() as lock:
            if not maps.try_lock(lock, space_id):
                return None
            with self.database.transaction() as session:
                space = session.get_one(SpaceRow, space_id)
                maps.start_attempt(session, space_id)
            try:
                return self._build(space)
            except Exception as error:
                with self.database.transaction() as session:
                    maps.fail(session, space_id, error)
                raise

    def _build(self, space: SpaceRow) -> int:
        started = time.monotonic()
        with self.database.snapshot() as session:
            previous = maps.find_newest(session, space.id)
            covered_seq = vector_stream.last_seq_of_space(session, space.id)
            model_ids, unit = load_unit_vectors(session, space, self.folder)
        coordinates = previous_coordinates(previous, model_ids)
        layout = lay_out(unit, coordinates, report_stage=lambda stage: log.info("%s", stage))
        with self.database.transaction() as session:
            row = maps.store(
                session,
                space.id,
                MapData(model_ids, layout.coordinates, layout.distortion),
                covered_seq=covered_seq,
                parameters=layout.parameters,
                seconds=time.monotonic() - started,
            )
        log.info("space %s: map of %s models", space.id, len(model_ids))
        return row.id


def previous_coordinates(previous: Map | None, model_ids: np.ndarray) -> np.ndarray | None:
    """The coordinates (n, 2) of distinct models (n,) on the previous map, NaN for models that it does not have."""
    if previous is None:
        return None
    stored = maps.decode(previous)
    coordinates = np.full((len(model_ids), 2), np.nan, np.float32)
    _, rows, stored_rows = np.intersect1d(model_ids, stored.model_ids, assume_unique=True, return_indices=True)
    coordinates[rows] = stored.coordinates[stored_rows]
    return coordinates


def main(space_id: int) -> int:
    """Build the map of a space. Returns the exit code of the process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    conf = settings()
    database = Database(conf.require_database_url())
    try:
        MapRunner(database, conf.data_dir / "maps").run(space_id)
    except CatalogError as error:
        log.error("building the map of space %s failed: %s: %s", space_id, error.code, error)
        return 1
    finally:
        database.close()
    return 0
