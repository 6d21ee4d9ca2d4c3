"""What the routes work with, made once a process."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from threading import Event
from typing import Annotated, Self

from fastapi import Depends, Request

from app.api.services.event_stream import Broadcast
from app.api.services.map_body import MapBodies
from catalog.database import Database
from catalog.errors import CatalogError
from catalog.index.follower import Follower
from catalog.maps.view import Atlas, Standing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Services:
    database: Database
    index: Follower
    atlas: Atlas
    map_bodies: MapBodies
    events: Broadcast

    @classmethod
    def of(cls, database: Database, index: Follower) -> Self:
        return cls(database, index, Atlas(database, index), MapBodies(), Broadcast(database))

    def map_body(self, standing: Standing) -> bytes:
        """The map as it stands, JSON in gzip. Raises `IndexNotLoaded`."""
        return self.map_bodies.gzipped(self.atlas.view(standing))

    def keep_maps_ready(self, stopping: Event, interval: float) -> None:
        """Until told to stop, make the default map before anybody asks for it: a large one takes a second or two."""
        while not stopping.wait(interval):
            try:
                self.map_body(self.atlas.standing())
            except CatalogError:
                continue  # there is none yet, or Postgres is away
            except Exception:
                log.exception("the map could not be made ready; the next look tries again")


async def _services(request: Request) -> Services:
    return request.app.state.services


ServicesDep = Annotated[Services, Depends(_services)]
