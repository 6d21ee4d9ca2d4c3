"""What the routes work with, made once a process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

from fastapi import Depends, Request

from app.api.map_body import MapBodies
from catalog.atlas import Atlas
from catalog.database import Database
from catalog.index import Follower


@dataclass(frozen=True)
class Services:
    database: Database
    index: Follower
    atlas: Atlas
    map_bodies: MapBodies

    @classmethod
    def of(cls, database: Database, index: Follower) -> Self:
        return cls(database, index, Atlas(database, index), MapBodies())


def _services(request: Request) -> Services:
    return request.app.state.services


ServicesDep = Annotated[Services, Depends(_services)]
