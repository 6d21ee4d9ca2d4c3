"""The objects that the routes share, created once per process."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from threading import Event
from typing import Annotated, Self

from fastapi import Depends, Request

from app.api.services.event_stream import EventStream
from app.api.services.map_body import MapBodies
from app.api.services.readiness import Readiness
from app.api.services.stats_cache import StatsCache
from catalog.database import Database
from catalog.errors import CatalogError
from catalog.index.follower import IndexFollower
from catalog.maps.view import MapCache

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Services:
    """`database` is for requests. What runs in the background has a pool of its own, so that neither waits for the
    other's connections.
    """

    database: Database
    index: IndexFollower
    map_cache: MapCache
    map_bodies: MapBodies
    events: EventStream
    readiness: Readiness
    stats: StatsCache

    @classmethod
    def create(cls, database: Database, background: Database, index: IndexFollower, heartbeat_timeout: float) -> Self:
        map_cache = MapCache(database, index)
        return cls(
            database,
            index,
            map_cache,
            MapBodies(map_cache.view),
            EventStream(background),
            Readiness(background, index, heartbeat_timeout),
            StatsCache(database, heartbeat_timeout),
        )

    def refresh_default_map(self, stopping: Event, interval: float) -> None:
        """Load the default map every `interval` seconds until `stopping` is set: a large one takes seconds."""
        while not stopping.wait(interval):
            try:
                self.map_bodies.make(self.map_cache.current_version())
            except CatalogError:
                continue  # there is no map yet, or Postgres is down
            except Exception:
                log.exception("Unexpected error while loading the default map; retrying")


async def _services(request: Request) -> Services:
    return request.app.state.services


ServicesDep = Annotated[Services, Depends(_services)]
