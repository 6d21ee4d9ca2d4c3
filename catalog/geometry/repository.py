"""The geometries that were fitted to spaces."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from catalog.geometry.transforms import MIN_MODELS, Geometry, default_kind
from catalog.tables import FittedGeometry, SpaceRow

KEPT_PER_KEY = 2  # the current one, and the one that another process may still be replacing
ALL_BASES = ""  # the base of a geometry that is fitted to all models of a space


@dataclass(frozen=True)
class GeometryKey:
    """A kind, and in a space that spans bases the base whose models it is for. One geometry per key is current."""

    kind: str
    base: str = ALL_BASES


@dataclass(frozen=True, eq=False)
class StoredGeometry:
    """A geometry with its id, its key, and the number of models that it was fitted to."""

    id: int
    key: GeometryKey
    models: int
    geometry: Geometry

    @property
    def kind(self) -> str:
        return self.key.kind


def create(session: Session, space_id: int, key: GeometryKey, geometry: Geometry, models: int) -> int:
    """Store a geometry as the current one of its key, and delete old ones; returns its id."""
    columns = {"space_id": space_id, "kind": key.kind, "base_repo": key.base}
    row = FittedGeometry(**columns, models=models, data=geometry.to_bytes())
    session.add(row)
    session.flush()
    old = select(FittedGeometry.id).filter_by(**columns).order_by(FittedGeometry.id.desc()).offset(KEPT_PER_KEY)
    session.execute(delete(FittedGeometry).where(FittedGeometry.id.in_(old)))
    return row.id


def current_ids(session: Session, space_ids: Collection[int]) -> dict[int, dict[GeometryKey, int]]:
    """The ids of the current geometries of these spaces, by space and key."""
    key = (FittedGeometry.space_id, FittedGeometry.kind, FittedGeometry.base_repo)
    statement = (
        select(*key, FittedGeometry.id)
        .ext(distinct_on(*key))
        .where(FittedGeometry.space_id.in_(space_ids))
        .order_by(*key, FittedGeometry.id.desc())
    )
    ids: dict[int, dict[GeometryKey, int]] = {}
    for space_id, kind, base, geometry_id in session.execute(statement):
        ids.setdefault(space_id, {})[GeometryKey(kind, base)] = geometry_id
    return ids


def find(session: Session, geometry_id: int) -> StoredGeometry | None:
    """The geometry with this id. None if it has been deleted since its id was read."""
    row = session.get(FittedGeometry, geometry_id)
    if row is None:
        return None
    return StoredGeometry(row.id, GeometryKey(row.kind, row.base_repo), row.models, Geometry.from_bytes(row.data))


def find_default(session: Session, space: SpaceRow) -> StoredGeometry | None:
    """The geometry that searches of a space use by default; None if they compare raw vectors."""
    ids = current_ids(session, [space.id]).get(space.id, {})
    geometry_id = ids.get(GeometryKey(default_kind(space.feature)))
    stored = find(session, geometry_id) if geometry_id is not None else None
    return stored if stored and stored.models >= MIN_MODELS else None
