"""Selections, and which models they may choose from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog import repository
from catalog.auth.viewer import EVERYTHING, Viewer
from catalog.errors import SelectionNotFound
from catalog.models.repository import models
from catalog.repository import newest_first, owned_by
from catalog.tables import Job, Model, ModelState, Revision, Selection, Source

KIND = "lora"  # that has a weight in a sum


def add(session: Session, **values: Any) -> Selection:
    number = session.execute(select(func.nextval(func.pg_get_serial_sequence("selections", "id")))).scalar_one()
    model = models.ensure(session, f"selection:{number}@{values['base_repo']}", Source.SELECTION, private=True)
    statement = insert(Selection).values(id=number, model_id=model.id, **values)
    return session.scalars(statement.returning(Selection)).one()


def get(session: Session, selection_id: int, viewer: Viewer = EVERYTHING) -> Selection:
    """Raises `SelectionNotFound`, also where the viewer may not see it."""
    selection = session.get(Selection, selection_id, populate_existing=True)
    if selection is None or not viewer.sees(selection.viewer):
        raise _missing(selection_id)
    return selection


def of_model(session: Session, model_id: int) -> Selection:
    """The one that a job's model stands for."""
    return session.scalars(select(Selection).where(Selection.model_id == model_id)).one()


def page(session: Session, viewer: Viewer, *, before: int | None, limit: int) -> list[Selection]:
    """Up to `limit` with an id below `before`, newest first."""
    statement = select(Selection).where(owned_by(Selection.viewer, viewer))
    return list(session.scalars(newest_first(statement, Selection.id, before, limit)))


def jobs_of(session: Session, found: Sequence[Selection]) -> dict[int, Job]:
    """The job of each, by the selection."""
    return repository.jobs_of(session, {selection.model_id: selection.id for selection in found})


def job_of(session: Session, selection: Selection) -> Job:
    """Raises `SelectionNotFound` where it has been deleted since it was read."""
    found = jobs_of(session, [selection])
    if selection.id not in found:
        raise _missing(selection.id)
    return found[selection.id]


def store(session: Session, selection_id: int, figures: dict[str, Any]) -> None:
    """What came out."""
    session.execute(update(Selection).where(Selection.id == selection_id).values(figures=figures))


def remove(session: Session, selection: Selection) -> None:
    """With its model and its job."""
    session.execute(delete(Model).where(Model.id == selection.model_id))


def choosable(session: Session, base_repo: str) -> np.ndarray:
    """Ids (m,) of the models of a base that everybody sees and that have a weight in a sum, in order."""
    statement = (
        select(Model.id)
        .join(Revision, (Revision.model_id == Model.id) & Revision.current)
        .where(
            Revision.base_repo == base_repo, Revision.kind == KIND, Model.state == ModelState.INDEXED, ~Model.private
        )
        .order_by(Model.id)
    )
    return np.array(session.scalars(statement).all(), np.int64)


def _missing(selection_id: int) -> SelectionNotFound:
    return SelectionNotFound(f"There is no selection {selection_id}. GET /v1/selections lists them.")
