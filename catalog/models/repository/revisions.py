"""A model's revisions and their measurements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, true
from sqlalchemy.orm import Session, aliased

from catalog.database import newest_first
from catalog.tables import Revision, SpaceRow, Vector


@dataclass(frozen=True)
class Measurement:
    """A revision's vector in a space and its norm, and those of the previous revision there that was current. Vectors
    are float32.
    """

    space: SpaceRow
    norm: float
    no_shift: bool
    data: bytes
    norm_before: float | None
    data_before: bytes | None


def list_page(session: Session, model_id: int, *, before: int | None, limit: int) -> list[Revision]:
    """Up to `limit` revisions with an id below `before`, newest first."""
    statement = select(Revision).where(Revision.model_id == model_id)
    return list(session.scalars(newest_first(statement, Revision.id, before, limit)))


def list_measurements(session: Session, model_id: int, revision_ids: Sequence[int]) -> dict[int, list[Measurement]]:
    """The measurements of each revision, newest space first, by revision id. One statement."""
    if not revision_ids:
        return {}
    earlier = aliased(Vector)
    prior = (
        select(earlier.norm, earlier.data)
        .where(
            earlier.model_id == Vector.model_id,
            earlier.space_id == Vector.space_id,
            earlier.revision_id < Vector.revision_id,
            earlier.seq > 0,  # it was current once
        )
        .order_by(earlier.revision_id.desc())
        .limit(1)
        .lateral()
    )
    statement = (
        select(Vector.revision_id, SpaceRow, Vector.norm, Vector.no_shift, Vector.data, prior.c.norm, prior.c.data)
        .join(SpaceRow, SpaceRow.id == Vector.space_id)
        .join(Revision, Revision.id == Vector.revision_id)
        .outerjoin(prior, true())
        .where(Vector.model_id == model_id, Vector.revision_id.in_(revision_ids))
        .where(SpaceRow.is_of_base(Revision.base_repo))
        .order_by(SpaceRow.id.desc())
    )
    measurements: dict[int, list[Measurement]] = defaultdict(list)
    for revision_id, *columns in session.execute(statement):
        measurements[revision_id].append(Measurement(*columns))
    return dict(measurements)
