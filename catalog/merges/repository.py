"""Merges of adapters, and their vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import delete as sql_delete
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog.auth.repository import owned_rows
from catalog.auth.viewer import ADMIN, Viewer
from catalog.errors import MergeNotFound, NameTaken
from catalog.models.repository import models
from catalog.tables import Job, Merge, MergeVector, Model, Source, SpaceRow


def create(session: Session, predicted: Mapping[int, np.ndarray], **values: Any) -> Merge:
    """Create a merge with its predicted vectors (d,) by space id. Raises `NameTaken`."""
    merge_id = session.execute(select(func.nextval(func.pg_get_serial_sequence("merges", "id")))).scalar_one()
    model = models.get_or_create(session, f"merge:{merge_id}@{values['base_repo']}", Source.MERGE, private=True)
    statement = insert(Merge).values(id=merge_id, model_id=model.id, **values).on_conflict_do_nothing()
    merge = session.scalars(statement.returning(Merge)).one_or_none()
    if merge is None:
        raise NameTaken(f"A merge named {values['name']!r} already exists. Choose another name, or delete that merge.")
    _store_vectors(session, merge.id, predicted, predicted=True)
    return merge


def get(session: Session, merge_id: int, viewer: Viewer = ADMIN) -> Merge:
    """The merge with this id. Raises `MergeNotFound`, also if the viewer may not see it."""
    merge = session.get(Merge, merge_id, populate_existing=True)
    if merge is None or not viewer.can_see(merge.viewer):
        raise not_found(merge_id)
    return merge


def get_by_model(session: Session, model_id: int) -> Merge:
    """The merge whose job belongs to this hidden model."""
    return session.scalars(select(Merge).where(Merge.model_id == model_id)).one()


def find(session: Session, name: str, viewer: Viewer) -> Merge | None:
    """The merge with this id or name. The viewer's own merge takes precedence over a public one."""
    return owned_rows.find_by_id_or_name(session, Merge, name, viewer)


def list_names(session: Session, viewer: Viewer, limit: int) -> list[str]:
    """The names of the newest merges that have one."""
    return owned_rows.list_names(session, Merge, viewer, limit)


def list_page(session: Session, viewer: Viewer, *, before: int | None, limit: int) -> list[Merge]:
    """Up to `limit` merges with an id below `before`, newest first."""
    return owned_rows.list_page(session, Merge, viewer, before=before, limit=limit)


def get_jobs(session: Session, merges: Sequence[Merge]) -> dict[int, Job]:
    """The jobs of merges, by the ids of the merges."""
    return owned_rows.jobs_by_owner(session, {merge.model_id: merge.id for merge in merges})


def get_job(session: Session, merge: Merge) -> Job:
    """The job of a merge. Raises `MergeNotFound` if the merge has been deleted since it was read."""
    jobs = get_jobs(session, [merge])
    if merge.id not in jobs:
        raise not_found(merge.id)
    return jobs[merge.id]


def store(session: Session, merge_id: int, vectors: Mapping[int, np.ndarray], metrics: dict[str, Any]) -> None:
    """Store the result of a merge, replacing that of an earlier attempt. The `vectors` (d,) are by space id."""
    session.execute(sql_delete(MergeVector).where(MergeVector.merge_id == merge_id, ~MergeVector.predicted))
    _store_vectors(session, merge_id, vectors, predicted=False)
    session.execute(update(Merge).where(Merge.id == merge_id).values(metrics=metrics))


def get_vectors(session: Session, merge_id: int, *, predicted: bool) -> list[tuple[SpaceRow, np.ndarray]]:
    """A merge's vector (d,) in each of its spaces: the predicted or the measured one."""
    statement = (
        select(SpaceRow, MergeVector)
        .join(SpaceRow, SpaceRow.id == MergeVector.space_id)
        .where(MergeVector.merge_id == merge_id, MergeVector.predicted == predicted)
        .order_by(SpaceRow.id)
    )
    return [(space, row.vector) for space, row in session.execute(statement)]


def delete(session: Session, merge: Merge) -> None:
    """Delete a merge with its hidden model, job, archive and vectors."""
    session.execute(sql_delete(Merge).where(Merge.id == merge.id))
    session.execute(sql_delete(Model).where(Model.id == merge.model_id))


def not_found(merge_id: int) -> MergeNotFound:
    return MergeNotFound(f"There is no merge {merge_id}. GET /v1/merges lists the merges.")


def _store_vectors(session: Session, merge_id: int, vectors: Mapping[int, np.ndarray], *, predicted: bool) -> None:
    for space_id, vector in vectors.items():
        values = {"dimension": vector.size, "data": vector.astype("<f4").tobytes(), "predicted": predicted}
        session.execute(insert(MergeVector).values(merge_id=merge_id, space_id=space_id, **values))
