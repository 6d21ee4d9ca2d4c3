"""Vectors that people gave a name."""

from __future__ import annotations

from typing import Any

import numpy as np
from sqlalchemy import Select, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog.auth.viewer import Viewer
from catalog.database import storable
from catalog.errors import NameTaken, TooManyVectors, VectorNotFound
from catalog.repository import owned_by
from catalog.tables import SpaceRow, StoredVector

MOST = 10_000  # stored at once: whoever can ask can store


def store(session: Session, name: str, space: SpaceRow, vector: np.ndarray, **values: Any) -> StoredVector:
    """`vector` (d,); `values` are the columns that are not read off it. Raises `NameTaken`, `TooManyVectors`."""
    if session.execute(select(func.count()).select_from(StoredVector)).scalar_one() >= MOST:
        raise TooManyVectors(f"{MOST} vectors are stored here, and no more fit. Delete some that nobody uses.")
    numbers = vector.astype("<f4")
    values |= {"data": numbers.tobytes(), "dimension": numbers.size, "norm": float(np.linalg.norm(vector))}
    statement = insert(StoredVector).values(name=name, space_id=space.id, **values)
    statement = statement.on_conflict_do_nothing()
    stored = session.scalars(statement.returning(StoredVector)).one_or_none()
    if stored is None:
        raise NameTaken(f"There is a vector {name} already. Choose another name, or delete that one first.")
    return stored


def find(session: Session, name: str, viewer: Viewer) -> tuple[StoredVector, SpaceRow] | None:
    """The viewer's own of that name, or else everybody's."""
    own_first = StoredVector.viewer.is_(None), StoredVector.id
    row = session.execute(_shown(viewer).where(StoredVector.name == storable(name)).order_by(*own_first)).first()
    return (row[0], row[1]) if row else None


def get(session: Session, name: str, viewer: Viewer) -> tuple[StoredVector, SpaceRow]:
    """Raises `VectorNotFound`."""
    found = find(session, name, viewer)
    if found is None:
        raise VectorNotFound(f"There is no stored vector {name[:200]}. GET /v1/vectors lists them.")
    return found


def page(session: Session, viewer: Viewer, *, after: int, limit: int) -> list[tuple[StoredVector, SpaceRow]]:
    """Up to `limit` with an id above `after`, the oldest first."""
    rows = session.execute(_shown(viewer).where(StoredVector.id > after).order_by(StoredVector.id).limit(limit))
    return [(stored, space) for stored, space in rows]


def names(session: Session, viewer: Viewer) -> list[str]:
    return list(
        session.scalars(
            select(StoredVector.name).where(owned_by(StoredVector.viewer, viewer)).order_by(StoredVector.id)
        )
    )


def remove(session: Session, name: str, viewer: Viewer) -> tuple[StoredVector, SpaceRow]:
    """What it was. Raises `VectorNotFound`."""
    found = get(session, name, viewer)
    session.delete(found[0])
    session.flush()
    return found


def _shown(viewer: Viewer) -> Select[StoredVector, SpaceRow]:
    statement = select(StoredVector, SpaceRow).join(SpaceRow, SpaceRow.id == StoredVector.space_id)
    return statement.where(owned_by(StoredVector.viewer, viewer))
