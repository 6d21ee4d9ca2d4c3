"""Geometries as they were fitted to spaces."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from catalog.geometry import Geometry
from catalog.tables import FittedGeometry

KEPT = 2  # of a kind and space: the one in use, and the one that some process may still be going over from


@dataclass(frozen=True, eq=False)
class Fitted:
    """A geometry, its number, its kind, and how many models it was fitted to."""

    id: int
    kind: str
    models: int
    geometry: Geometry


def store(session: Session, space_id: int, kind: str, geometry: Geometry, models: int) -> int:
    """Use a geometry in place of the last of its kind; returns its number."""
    row = FittedGeometry(space_id=space_id, kind=kind, models=models, data=geometry.to_bytes())
    session.add(row)
    session.flush()
    those = select(FittedGeometry.id).where(FittedGeometry.space_id == space_id, FittedGeometry.kind == kind)
    old = those.order_by(FittedGeometry.id.desc()).offset(KEPT)
    session.execute(delete(FittedGeometry).where(FittedGeometry.id.in_(old)))
    return row.id


def newest(session: Session, space_ids: Collection[int]) -> dict[int, dict[str, int]]:
    """Of some spaces the numbers of the geometries in use, by kind."""
    statement = (
        select(FittedGeometry.space_id, FittedGeometry.kind, FittedGeometry.id)
        .ext(distinct_on(FittedGeometry.space_id, FittedGeometry.kind))
        .where(FittedGeometry.space_id.in_(space_ids))
        .order_by(FittedGeometry.space_id, FittedGeometry.kind, FittedGeometry.id.desc())
    )
    found: dict[int, dict[str, int]] = {}
    for space_id, kind, number in session.execute(statement):
        found.setdefault(space_id, {})[kind] = number
    return found


def get(session: Session, number: int) -> Fitted | None:
    """None where it was dropped meanwhile."""
    row = session.get(FittedGeometry, number)
    return Fitted(row.id, row.kind, row.models, Geometry.from_bytes(row.data)) if row else None
