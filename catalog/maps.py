"""Draws the map of a space and shows it, in a process of its own (`catalog.fit_map`)."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catalog.database import Database
from catalog.errors import CatalogError
from catalog.grouping import Grouper
from catalog.mapping.layout import lay_out
from catalog.repository import maps, vector_stream
from catalog.repository.maps import Drawn
from catalog.settings import settings
from catalog.tables import Map, SpaceRow

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drawer:
    """Draws maps. At most one is drawn of a space at a time, on any machine; `folder` is for its vectors."""

    database: Database
    folder: Path

    def run(self, space_id: int) -> int | None:
        """The map that was drawn; None where another process is at it. Raises what the database raises."""
        started = time.monotonic()
        with self.database.transaction() as lock:
            if not maps.try_lock(lock, space_id):
                return None
            with self.database.transaction() as session:
                space = session.get_one(SpaceRow, space_id)
                last = maps.newest(session, space_id)
                covered = vector_stream.covered(session, space_id)
                model_ids, unit = Grouper(self.database, self.folder).load(session, space)
            layout = lay_out(unit, last_places(last, model_ids), tell=lambda stage: log.info("%s", stage))
            with self.database.transaction() as session:
                row = maps.store(
                    session,
                    space_id,
                    Drawn(model_ids, layout.places, layout.distortion),
                    covered_seq=covered,
                    parameters=layout.parameters,
                    seconds=time.monotonic() - started,
                )
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
