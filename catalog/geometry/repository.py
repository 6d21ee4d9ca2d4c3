"""Geometries as they were fitted to spaces."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from catalog.geometry.transforms import DEFAULTS_BY_FEATURE, LEAST_MODELS, RAW, Geometry
from catalog.tables import FittedGeometry, SpaceRow

KEPT = 2  # of a place: the one in use, and the one that some process may still be going over from
OF_ALL = ""  # in place of a base


@dataclass(frozen=True)
class Place:
    """What a space has one geometry in use for: a kind, and in a space that spans bases one of these."""

    kind: str
    base: str = OF_ALL


@dataclass(frozen=True, eq=False)
class Fitted:
    """A geometry, its number, its place, and how many models it was fitted to."""

    id: int
    place: Place
    models: int
    geometry: Geometry

    @property
    def kind(self) -> str:
        return self.place.kind


def store(session: Session, space_id: int, place: Place, geometry: Geometry, models: int) -> int:
    """Use a geometry in place of the last of its place; returns its number."""
    there = {"space_id": space_id, "kind": place.kind, "base_repo": place.base}
    row = FittedGeometry(**there, models=models, data=geometry.to_bytes())
    session.add(row)
    session.flush()
    old = select(FittedGeometry.id).filter_by(**there).order_by(FittedGeometry.id.desc()).offset(KEPT)
    session.execute(delete(FittedGeometry).where(FittedGeometry.id.in_(old)))
    return row.id


def newest(session: Session, space_ids: Collection[int]) -> dict[int, dict[Place, int]]:
    """Of some spaces the numbers of the geometries in use, by place."""
    place = (FittedGeometry.space_id, FittedGeometry.kind, FittedGeometry.base_repo)
    statement = (
        select(*place, FittedGeometry.id)
        .ext(distinct_on(*place))
        .where(FittedGeometry.space_id.in_(space_ids))
        .order_by(*place, FittedGeometry.id.desc())
    )
    found: dict[int, dict[Place, int]] = {}
    for space_id, kind, base, number in session.execute(statement):
        found.setdefault(space_id, {})[Place(kind, base)] = number
    return found


def get(session: Session, number: int) -> Fitted | None:
    """None where it was dropped meanwhile."""
    row = session.get(FittedGeometry, number)
    if row is None:
        return None
    return Fitted(row.id, Place(row.kind, row.base_repo), row.models, Geometry.from_bytes(row.data))


def default(session: Session, space: SpaceRow) -> Fitted | None:
    """What searches of a space use unasked; None: vectors as they are."""
    numbers = newest(session, [space.id]).get(space.id, {})
    number = numbers.get(Place(DEFAULTS_BY_FEATURE.get(space.feature, RAW)))
    fitted = get(session, number) if number is not None else None
    return fitted if fitted and fitted.models >= LEAST_MODELS else None
