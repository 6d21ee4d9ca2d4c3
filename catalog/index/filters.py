"""The filters of a search."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Filters:
    """Conditions on models, all of which must hold; an empty one holds for every model. A model passes if it has any of
    the bases, owners, kinds, licenses and clusters, and every one of the tags and team tags. A number or date that is
    unknown does not reach any minimum.
    """

    bases: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    not_owners: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    team_tags: tuple[str, ...] = ()
    clusters: tuple[int, ...] = ()
    min_downloads: int | None = None
    min_likes: int | None = None
    updated_since: datetime | None = None


NO_FILTERS = Filters()
