"""Which models a viewer sees, and who was let in.

A repo may have two rows: a public one, and a private one that was read with users' tokens. Whoever may see the private
one has it in place of the public one; for all others there is the public one or none.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, delete, false, func, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.tables import Model, ModelAccess, ModelState, SpaceRow, Vector, change_seq

# for SQL as text over `vectors`: leaves out what nobody sees without a key
PUBLIC_VECTORS = "NOT EXISTS (SELECT 1 FROM models WHERE models.id = vectors.model_id AND models.private)"

STORED = (ModelState.INDEXED, ModelState.NO_SHIFT)


def visible(viewer: Viewer) -> ColumnElement[bool]:
    """A condition on `Model`."""
    if viewer == PUBLIC:
        return ~Model.private
    twin = aliased(Model)
    same_name = select(twin.id).where(twin.repo_id == Model.repo_id, _shown(twin, viewer))
    return _shown(Model, viewer) | (~Model.private & ~same_name.exists())


def space_visible(viewer: Viewer) -> ColumnElement[bool]:
    """A condition on `SpaceRow`: a space's base may be as private as the models in it."""
    if viewer.everything:
        return true()
    seen = select(Vector.id).join(Model, Model.id == Vector.model_id).where(Vector.space_id == SpaceRow.id)
    # in an order, so that it is looked for along an index and not in a whole table
    return seen.where(visible(viewer)).order_by(Vector.seq).limit(1).scalar_subquery().is_not(None)


def _shown(model: type[Model], viewer: Viewer) -> ColumnElement[bool]:
    """A private model that is stored and that the viewer may see."""
    let_in = select(ModelAccess.model_id).where(
        ModelAccess.model_id == model.id, ModelAccess.submitter == viewer.submitter
    )
    allowed = true() if viewer.everything else let_in.exists() if viewer.submitter else false()
    return model.private & model.state.in_(STORED) & allowed


def private_model(session: Session, repo_id: str) -> Model | None:
    """The private row of a repo, whoever may see it."""
    return session.scalars(select(Model).where(Model.repo_id == repo_id, Model.private)).one_or_none()


def grant(session: Session, model_id: int, submitter: str, *, by_admin: bool = False) -> None:
    """Let a submitter see a private model from this commit on. The caller holds `vectors.lock_feed`."""
    statement = insert(ModelAccess).values(model_id=model_id, submitter=submitter, by_admin=by_admin)
    session.execute(statement.on_conflict_do_nothing())
    _announce(session, model_id)


def revoke(session: Session, model_id: int, submitter: str | None = None) -> None:
    """Let a submitter, or nobody at all, see it any more. The caller holds `vectors.lock_feed`."""
    statement = delete(ModelAccess).where(ModelAccess.model_id == model_id)
    session.execute(statement if submitter is None else statement.where(ModelAccess.submitter == submitter))
    _announce(session, model_id)


def granted(session: Session, model_id: int) -> Sequence[ModelAccess]:
    """Who may see it, in the order in which they were let in."""
    statement = select(ModelAccess).where(ModelAccess.model_id == model_id)
    return session.scalars(statement.order_by(ModelAccess.created_at, ModelAccess.submitter)).all()


def _announce(session: Session, model_id: int) -> None:
    """Have every process read anew who may find it."""
    session.execute(
        update(Model).where(Model.id == model_id).values(seq=change_seq.next_value(), updated_at=func.now())
    )
