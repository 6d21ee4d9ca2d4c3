"""Vectors that users stored under a name."""

from __future__ import annotations

from typing import Any

import numpy as np
from sqlalchemy import Select, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog.auth.repository.owned_rows import visible_to
from catalog.auth.viewer import Viewer
from catalog.database import storable
from catalog.errors import NameTaken, TooManyVectors, VectorNotFound
from catalog.tables import SpaceRow, StoredVector

MAX_STORED = 10_000  # vectors in all, since anyone who can search can also store


def store(session: Session, name: str, space: SpaceRow, vector: np.ndarray, **values: Any) -> StoredVector:
    """Store a vector (d,) with the values of its other columns. Raises `NameTaken`, `TooManyVectors`."""
    if session.execute(select(func.count()).select_from(StoredVector)).scalar_one() >= MAX_STORED:
        raise TooManyVectors(f"The limit of {MAX_STORED} stored vectors is reached. Delete some that are not needed.")
    numbers = vector.astype("<f4")
    values |= {
        "data": numbers.tobytes(),
        "dimension": numbers.size,
        "norm": float(np.linalg.norm(vector.astype(np.float64))),
    }
    statement = insert(StoredVector).values(name=name, space_id=space.id, **values)
    statement = statement.on_conflict_do_nothing()
    stored = session.scalars(statement.returning(StoredVector)).one_or_none()
    if stored is None:
        raise NameTaken(f"A vector named {name} already exists. Choose another name, or delete that vector first.")
    return stored


def find(session: Session, name: str, viewer: Viewer) -> tuple[StoredVector, SpaceRow] | None:
    """The viewer's vector of that name, or else the public one; None if there is neither."""
    private_first = StoredVector.viewer.is_(None), StoredVector.id
    row = session.execute(_visible(viewer).where(StoredVector.name == storable(name)).order_by(*private_first)).first()
    return (row[0], row[1]) if row else None


def get(session: Session, name: str, viewer: Viewer) -> tuple[StoredVector, SpaceRow]:
    """The vector that `find` returns. Raises `VectorNotFound`."""
    row = find(session, name, viewer)
    if row is None:
        raise VectorNotFound(f"There is no stored vector {name[:200]}. GET /v1/vectors lists the stored vectors.")
    return row


def list_page(session: Session, viewer: Viewer, *, after: int, limit: int) -> list[tuple[StoredVector, SpaceRow]]:
    """Up to `limit` vectors with an id above `after`, oldest first."""
    rows = session.execute(_visible(viewer).where(StoredVector.id > after).order_by(StoredVector.id).limit(limit))
    return [(stored, space) for stored, space in rows]


def list_names(session: Session, viewer: Viewer, limit: int) -> list[str]:
    """The names of the newest stored vectors that the viewer may see."""
    statement = select(StoredVector.name).where(visible_to(StoredVector.viewer, viewer))
    return list(session.scalars(statement.order_by(StoredVector.id.desc()).limit(limit)))


def delete(session: Session, name: str, viewer: Viewer) -> tuple[StoredVector, SpaceRow]:
    """Delete a vector and return it. Raises `VectorNotFound`."""
    stored, space = get(session, name, viewer)
    session.delete(stored)
    session.flush()
    return stored, space


def _visible(viewer: Viewer) -> Select[StoredVector, SpaceRow]:
    statement = select(StoredVector, SpaceRow).join(SpaceRow, SpaceRow.id == StoredVector.space_id)
    return statement.where(visible_to(StoredVector.viewer, viewer))
