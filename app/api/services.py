"""What the routes work with, made once a process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.api.broadcast import Broadcast
from catalog.database import Database
from catalog.index import Follower


@dataclass(frozen=True)
class Services:
    database: Database
    index: Follower
    events: Broadcast


def _services(request: Request) -> Services:
    return request.app.state.services


ServicesDep = Annotated[Services, Depends(_services)]
