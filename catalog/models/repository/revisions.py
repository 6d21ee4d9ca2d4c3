"""A model's revisions, and how they were measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, true
from sqlalchemy.orm import Session, aliased

from catalog.repository import newest_first
from catalog.tables import Revision, SpaceRow, Vector


@dataclass(frozen=True)
class Measurement:
    """A revision's vector in a space, and that of the model's revision before it there: float32 bytes, and norms."""

    space: SpaceRow
    norm: float
    no_shift: bool
    data: bytes
    norm_before: float | None
    data_before: bytes | None


def page(session: Session, model_id: int, *, before: int | None, limit: int) -> list[Revision]:
    """Up to `limit` revisions with an id below `before`, newest first."""
    statement = select(Revision).where(Revision.model_id == model_id)
    return list(session.scalars(newest_first(statement, Revision.id, before, limit)))


def measured(session: Session, model_id: int, revision_ids: Sequence[int]) -> dict[int, list[Measurement]]:
    """By revision, what is known of it in each space, the newest space first. One statement."""
    if not revision_ids:
        return {}
    earlier = aliased(Vector)
    before = (
        select(earlier.norm, earlier.data)
        .where(
            earlier.model_id == Vector.model_id,
            earlier.space_id == Vector.space_id,
            earlier.revision_id < Vector.revision_id,
        )
        .order_by(earlier.revision_id.desc())
        .limit(1)
        .lateral()
    )
    statement = (
        select(Vector.revision_id, SpaceRow, Vector.norm, Vector.no_shift, Vector.data, before.c.norm, before.c.data)
        .join(SpaceRow, SpaceRow.id == Vector.space_id)
        .outerjoin(before, true())
        .where(Vector.model_id == model_id, Vector.revision_id.in_(revision_ids))
        .order_by(SpaceRow.id.desc())
    )
    found: dict[int, list[Measurement]] = defaultdict(list)
    for revision_id, *rest in session.execute(statement):
        found[revision_id].append(Measurement(*rest))
    return dict(found)
