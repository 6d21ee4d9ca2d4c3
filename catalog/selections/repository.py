"""Selections, and the models that they may select from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import delete as sql_delete
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog.auth.repository import owned_rows
from catalog.auth.viewer import ADMIN, Viewer
from catalog.errors import SelectionNotFound
from catalog.models.repository import models
from catalog.tables import Job, Model, ModelState, Revision, Selection, Source, TeamTag

KIND = "lora"  # the only kind of adapter whose deltas can be summed


def create(session: Session, **values: Any) -> Selection:
    """Create a selection and its hidden model."""
    selection_id = session.execute(select(func.nextval(func.pg_get_serial_sequence("selections", "id")))).scalar_one()
    model = models.get_or_create(
        session, f"selection:{selection_id}@{values['base_repo']}", Source.SELECTION, private=True
    )
    statement = insert(Selection).values(id=selection_id, model_id=model.id, **values)
    return session.scalars(statement.returning(Selection)).one()


def get(session: Session, selection_id: int, viewer: Viewer = ADMIN) -> Selection:
    """The selection with this id. Raises `SelectionNotFound`, also if the viewer may not see it."""
    selection = session.get(Selection, selection_id, populate_existing=True)
    if selection is None or not viewer.can_see(selection.viewer):
        raise _not_found(selection_id)
    return selection


def get_by_model(session: Session, model_id: int) -> Selection:
    """The selection whose job belongs to this hidden model."""
    return session.scalars(select(Selection).where(Selection.model_id == model_id)).one()


def list_page(session: Session, viewer: Viewer, *, before: int | None, limit: int) -> list[Selection]:
    """Up to `limit` selections with an id below `before`, newest first."""
    return owned_rows.list_page(session, Selection, viewer, before=before, limit=limit)


def get_jobs(session: Session, selections: Sequence[Selection]) -> dict[int, Job]:
    """The jobs of selections, by selection id."""
    return owned_rows.jobs_by_owner(session, {selection.model_id: selection.id for selection in selections})


def get_job(session: Session, selection: Selection) -> Job:
    """The job of a selection. Raises `SelectionNotFound` if it has been deleted since it was read."""
    jobs = get_jobs(session, [selection])
    if selection.id not in jobs:
        raise _not_found(selection.id)
    return jobs[selection.id]


def store_metrics(session: Session, selection_id: int, metrics: dict[str, Any]) -> None:
    """Store the result of a selection."""
    session.execute(update(Selection).where(Selection.id == selection_id).values(metrics=metrics))


def delete(session: Session, selection: Selection) -> None:
    """Delete a selection with its hidden model and its job."""
    session.execute(sql_delete(Model).where(Model.id == selection.model_id))


def selectable_ids(session: Session, base_repo: str, team_tags: Sequence[str] = ()) -> np.ndarray:
    """The ids (m,) of the public plain LoRA adapters of a base that have all of the team tags, ascending."""
    statement = (
        select(Model.id)
        .join(Revision, (Revision.model_id == Model.id) & Revision.current)
        .where(
            Revision.base_repo == base_repo, Revision.kind == KIND, Model.state == ModelState.INDEXED, ~Model.private
        )
        .where(*TeamTag.on_model(team_tags))
        .order_by(Model.id)
    )
    return np.array(session.scalars(statement).all(), np.int64)


def _not_found(selection_id: int) -> SelectionNotFound:
    return SelectionNotFound(f"There is no selection {selection_id}. GET /v1/selections lists the selections.")
