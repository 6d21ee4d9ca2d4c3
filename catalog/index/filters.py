"""Which models a search may return, combined freely."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Filters:
    """Of bases, owners, kinds, licences and clusters any of those named; of tags every one. Nothing named, nothing
    asked. A number or a date that the Hub did not tell does not reach any least one.
    """

    bases: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    not_owners: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    clusters: tuple[int, ...] = ()
    min_downloads: int | None = None
    min_likes: int | None = None
    updated_since: datetime | None = None


NO_FILTERS = Filters()
