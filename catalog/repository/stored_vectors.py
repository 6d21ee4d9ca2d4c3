"""Vectors that people gave a name."""

from __future__ import annotations

from typing import Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog.database import storable
from catalog.errors import NameTaken, TooManyVectors, VectorNotFound
from catalog.tables import SpaceRow, StoredVector

MOST = 10_000  # stored at once: whoever can ask can store


def store(session: Session, name: str, space: SpaceRow, vector: np.ndarray, **values: Any) -> StoredVector:
    """`vector` (d,); `values` are the columns that are not read off it. Raises `NameTaken`, `TooManyVectors`."""
    if session.execute(select(func.count()).select_from(StoredVector)).scalar_one() >= MOST:
        raise TooManyVectors(f"{MOST} vectors are stored here, and no more fit. Delete some that nobody uses.")
    numbers = vector.astype("<f4")
    values |= {"data": numbers.tobytes(), "dimension": numbers.size, "norm": float(np.linalg.norm(vector))}
    statement = insert(StoredVector).values(name=name, space_id=space.id, **values)
    statement = statement.on_conflict_do_nothing(index_elements=["name"])
    stored = session.scalars(statement.returning(StoredVector)).one_or_none()
    if stored is None:
        raise NameTaken(f"There is a vector {name} already. Choose another name, or delete that one first.")
    return stored


def find(session: Session, name: str) -> tuple[StoredVector, SpaceRow] | None:
    statement = select(StoredVector, SpaceRow).join(SpaceRow, SpaceRow.id == StoredVector.space_id)
    row = session.execute(statement.where(StoredVector.name == storable(name))).one_or_none()
    return (row[0], row[1]) if row else None


def get(session: Session, name: str) -> tuple[StoredVector, SpaceRow]:
    """Raises `VectorNotFound`."""
    found = find(session, name)
    if found is None:
        raise VectorNotFound(f"There is no stored vector {name[:200]}. GET /v1/vectors lists them.")
    return found


def page(session: Session, *, after: int, limit: int) -> list[tuple[StoredVector, SpaceRow]]:
    """Up to `limit` with an id above `after`, the oldest first."""
    statement = select(StoredVector, SpaceRow).join(SpaceRow, SpaceRow.id == StoredVector.space_id)
    rows = session.execute(statement.where(StoredVector.id > after).order_by(StoredVector.id).limit(limit))
    return [(stored, space) for stored, space in rows]


def names(session: Session) -> list[str]:
    return list(session.scalars(select(StoredVector.name).order_by(StoredVector.id)))


def remove(session: Session, name: str) -> tuple[StoredVector, SpaceRow]:
    """What it was. Raises `VectorNotFound`."""
    found = get(session, name)
    session.delete(found[0])
    session.flush()
    return found
