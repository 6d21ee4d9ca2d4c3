"""Merges of adapters, and their vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog import repository
from catalog.auth.viewer import EVERYTHING, Viewer
from catalog.errors import MergeNotFound, NameTaken
from catalog.models.repository import models
from catalog.repository import by_id_or_name, newest_first, owned_by
from catalog.tables import Job, Merge, MergeVector, Model, Source, SpaceRow


def add(session: Session, predicted: Mapping[int, np.ndarray], **values: Any) -> Merge:
    """A merge with what is predicted of it, by the space's id. Raises `NameTaken`."""
    number = session.execute(select(func.nextval(func.pg_get_serial_sequence("merges", "id")))).scalar_one()
    model = models.ensure(session, f"merge:{number}@{values['base_repo']}", Source.MERGE, private=True)
    statement = insert(Merge).values(id=number, model_id=model.id, **values).on_conflict_do_nothing()
    merge = session.scalars(statement.returning(Merge)).one_or_none()
    if merge is None:
        raise NameTaken(f"There is a merge {values['name']!r} already: choose another name, or delete that one.")
    _store_vectors(session, merge.id, predicted, predicted=True)
    return merge


def get(session: Session, merge_id: int, viewer: Viewer = EVERYTHING) -> Merge:
    """Raises `MergeNotFound`, also where the viewer may not see it."""
    merge = session.get(Merge, merge_id, populate_existing=True)
    if merge is None or not viewer.sees(merge.viewer):
        raise missing(merge_id)
    return merge


def of_model(session: Session, model_id: int) -> Merge:
    """The merge that a job's model stands for."""
    return session.scalars(select(Merge).where(Merge.model_id == model_id)).one()


def find(session: Session, name: str, viewer: Viewer) -> Merge | None:
    """By number or name: the viewer's own of that name, or else everybody's."""
    return by_id_or_name(session, Merge, name, viewer)


def names(session: Session, viewer: Viewer, limit: int) -> list[str]:
    """Of the newest merges that have one."""
    named = select(Merge.name).where(Merge.name.is_not(None), owned_by(Merge.viewer, viewer)).order_by(Merge.id.desc())
    return [name for name in session.scalars(named.limit(limit)) if name is not None]


def page(session: Session, viewer: Viewer, *, before: int | None, limit: int) -> list[Merge]:
    """Up to `limit` merges with an id below `before`, newest first."""
    statement = select(Merge).where(owned_by(Merge.viewer, viewer))
    return list(session.scalars(newest_first(statement, Merge.id, before, limit)))


def jobs_of(session: Session, found: Sequence[Merge]) -> dict[int, Job]:
    """The job of each, by the merge."""
    return repository.jobs_of(session, {merge.model_id: merge.id for merge in found})


def job_of(session: Session, merge: Merge) -> Job:
    """Raises `MergeNotFound` where it has been deleted since it was read."""
    found = jobs_of(session, [merge])
    if merge.id not in found:
        raise missing(merge.id)
    return found[merge.id]


def store(session: Session, merge_id: int, vectors: Mapping[int, np.ndarray], figures: dict[str, Any]) -> None:
    """What came out: by space its vector (d,), in place of what an earlier attempt left."""
    session.execute(delete(MergeVector).where(MergeVector.merge_id == merge_id, ~MergeVector.predicted))
    _store_vectors(session, merge_id, vectors, predicted=False)
    session.execute(update(Merge).where(Merge.id == merge_id).values(figures=figures))


def vectors(session: Session, merge_id: int, *, predicted: bool) -> list[tuple[SpaceRow, np.ndarray]]:
    """A merge's vector (d,) in each of its spaces: what was predicted, or what came out."""
    statement = (
        select(SpaceRow, MergeVector)
        .join(SpaceRow, SpaceRow.id == MergeVector.space_id)
        .where(MergeVector.merge_id == merge_id, MergeVector.predicted == predicted)
        .order_by(SpaceRow.id)
    )
    return [(space, vector.numbers) for space, vector in session.execute(statement)]


def remove(session: Session, merge: Merge) -> None:
    """With its model, its job, its archive and its vectors."""
    session.execute(delete(Merge).where(Merge.id == merge.id))
    session.execute(delete(Model).where(Model.id == merge.model_id))


def missing(merge_id: int) -> MergeNotFound:
    return MergeNotFound(f"There is no merge {merge_id}. GET /v1/merges lists them.")


def _store_vectors(session: Session, merge_id: int, vectors: Mapping[int, np.ndarray], *, predicted: bool) -> None:
    for space_id, vector in vectors.items():
        values = {"dimension": vector.size, "data": vector.astype("<f4").tobytes(), "predicted": predicted}
        session.execute(insert(MergeVector).values(merge_id=merge_id, space_id=space_id, **values))
