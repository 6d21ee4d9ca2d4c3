"""Which models a viewer can see, and access to private models.

A repo may have two rows: a public one, and a private one that was fetched with users' tokens. Viewers with access to
the private row see it instead of the public one; all others see the public row, if there is one.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, delete, false, func, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.tables import ApiKey, Model, ModelAccess, ModelState, SpaceRow, Vector, change_seq

# for textual SQL over `vectors`: leaves out private models
PUBLIC_VECTORS = "NOT EXISTS (SELECT 1 FROM models WHERE models.id = vectors.model_id AND models.private)"

STORED_STATES = (ModelState.INDEXED, ModelState.NO_SHIFT)


def visible_models(viewer: Viewer) -> ColumnElement[bool]:
    """Condition on `Model`: the viewer can see it. Nobody sees a model that an admin removed."""
    public = ~Model.private & Model.removed_at.is_(None)
    if viewer == PUBLIC:
        return public
    counterpart = aliased(Model)
    visible_private = select(counterpart.id).where(
        counterpart.repo_id == Model.repo_id, _is_visible_private(counterpart, viewer)
    )
    return _is_visible_private(Model, viewer) | (public & ~visible_private.exists())


def visible_spaces(viewer: Viewer) -> ColumnElement[bool]:
    """Condition on `SpaceRow`: the viewer can see a model in it. The name of its base may be private, too."""
    if viewer.is_admin:
        return true()
    vectors = select(Vector.id).join(Model, Model.id == Vector.model_id).where(Vector.space_id == SpaceRow.id)
    # ORDER BY makes Postgres walk an index instead of scanning the table
    return vectors.where(visible_models(viewer)).order_by(Vector.seq).limit(1).scalar_subquery().is_not(None)


def _is_visible_private(model: type[Model], viewer: Viewer) -> ColumnElement[bool]:
    """Condition on `model`: it is private and stored, and the viewer has access to it."""
    has_access = select(ModelAccess.model_id).where(
        ModelAccess.model_id == model.id, ModelAccess.submitter == viewer.submitter
    )
    allowed = true() if viewer.is_admin else has_access.exists() if viewer.submitter else false()
    return model.private & model.state.in_(STORED_STATES) & allowed


def find_private_model(session: Session, repo_id: str) -> Model | None:
    """The private row of a repo, regardless of access."""
    return session.scalars(select(Model).where(Model.repo_id == repo_id, Model.private)).one_or_none()


def grant(session: Session, model_id: int, submitter: str, *, by_admin: bool = False) -> None:
    """Give a submitter access to a private model. The caller holds `feed.lock_feed`."""
    statement = insert(ModelAccess).values(model_id=model_id, submitter=submitter, by_admin=by_admin)
    session.execute(statement.on_conflict_do_nothing())
    _bump_seq(session, model_id)


def revoke(session: Session, model_id: int, submitter: str | None = None) -> None:
    """Revoke the access of one submitter, or of all of them. The caller holds `feed.lock_feed`."""
    statement = delete(ModelAccess).where(ModelAccess.model_id == model_id)
    session.execute(statement if submitter is None else statement.where(ModelAccess.submitter == submitter))
    _bump_seq(session, model_id)


def list_access(session: Session, model_id: int) -> list[tuple[ModelAccess, ApiKey | None]]:
    """Which API keys have access to a private model, oldest grant first; None for ADMIN_API_KEY."""
    statement = select(ModelAccess, ApiKey).outerjoin(ApiKey, ApiKey.hash == ModelAccess.submitter)
    ordered = statement.where(ModelAccess.model_id == model_id).order_by(ModelAccess.created_at, ModelAccess.submitter)
    return [(access, key) for access, key in session.execute(ordered)]


def _bump_seq(session: Session, model_id: int) -> None:
    """Make every process reload who has access to the model."""
    session.execute(
        update(Model).where(Model.id == model_id).values(seq=change_seq.next_value(), updated_at=func.now())
    )
