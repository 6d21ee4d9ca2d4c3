"""Draws the map of a space and shows it, in a process of its own (`workers.maintenance map`)."""

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
from catalog.maps.repository import Drawn
from catalog.settings import settings
from catalog.tables import Map, SpaceRow
from catalog.vectors.repository import stream as vector_stream
from catalog.vectors.unit_vectors import load

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drawer:
    """Draws maps. At most one is drawn of a space at a time, on any machine; `folder` is for its vectors."""

    database: Database
    folder: Path

    def run(self, space_id: int) -> int | None:
        """The map that was drawn; None where another process is at it.

        Raises what the database raises; what went wrong is stored, and `maps.covered` waits after it.
        """
        with self.database.transaction() as lock:
            if not maps.try_lock(lock, space_id):
                return None
            with self.database.transaction() as session:
                space = session.get_one(SpaceRow, space_id)
                maps.note_attempt(session, space_id)
            try:
                return self._draw(space)
            except Exception as error:
                with self.database.transaction() as session:
                    maps.fail(session, space_id, error)
                raise

    def _draw(self, space: SpaceRow) -> int:
        started = time.monotonic()
        with self.database.transaction() as session:
            last = maps.newest(session, space.id)
            covered = vector_stream.covered(session, space.id)
            model_ids, unit = load(session, space, self.folder)
        layout = lay_out(unit, last_places(last, model_ids), tell=lambda stage: log.info("%s", stage))
        with self.database.transaction() as session:
            row = maps.store(
                session,
                space.id,
                Drawn(model_ids, layout.places, layout.distortion),
                covered_seq=covered,
                parameters=layout.parameters,
                seconds=time.monotonic() - started,
            )
        log.info("space %s: a map of %s models", space.id, len(model_ids))
        return row.id


def last_places(last: Map | None, model_ids: np.ndarray) -> np.ndarray | None:
    """The places (n, 2) of models (n,), each there once, on the last map; NaN for those that it did not hold."""
    if last is None:
        return None
    known = maps.arrays(last)
    places = np.full((len(model_ids), 2), np.nan, np.float32)
    _, mine, theirs = np.intersect1d(model_ids, known.model_ids, assume_unique=True, return_indices=True)
    places[mine] = known.places[theirs]
    return places


def main(space_id: int) -> int:
    """Draw that space's map and say how it went: the exit code of the process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    conf = settings()
    database = Database(conf.require_database_url())
    try:
        Drawer(database, conf.data_dir / "maps").run(space_id)
    except CatalogError as error:
        log.error("the map of space %s was not drawn: %s: %s", space_id, error.code, error)
        return 1
    finally:
        database.close()
    return 0
