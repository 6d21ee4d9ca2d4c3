"""SQL that finds and erases the rows of removed models and spaces."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, delete, func, select, text
from sqlalchemy.orm import Session

from catalog.blocks import repository as blocks
from catalog.errors import SpaceNotFound
from catalog.models.repository import names
from catalog.tables import (
    ACTIVE_REINDEX,
    Alias,
    Archive,
    Block,
    FormerName,
    Model,
    ModelAccess,
    Reindex,
    Revision,
    Source,
    SpaceRow,
    StoredVector,
    TeamNote,
    TeamTag,
    Vector,
)

_REMOVABLE = Model.removed_at.is_(None) & Model.source.in_((Source.HUB, Source.FOLDER))  # others are hidden


def list_by_name(session: Session, repo_id: str) -> list[Model]:
    """The public and the private row of the model with this current or former name, unless an admin removed it."""
    statement = select(Model).where(_REMOVABLE).order_by(Model.private)
    if rows := list(session.scalars(statement.where(Model.repo_id == repo_id))):
        return rows
    current = names.current_names(session, [repo_id]).get(repo_id)
    return list(session.scalars(statement.where(Model.repo_id == current))) if current else []


def list_by_block(session: Session, block: Block, limit: int) -> list[Model]:
    """Up to `limit` models that a block applies to, and that were not removed by an admin or a block."""
    statement = select(Model).where(_REMOVABLE, blocks.applies_to_model(block)).order_by(Model.id).limit(limit)
    return list(session.scalars(statement))


def count_revisions(session: Session, model_ids: Sequence[int]) -> int:
    statement = select(func.count()).select_from(Revision).where(Revision.model_id.in_(model_ids))
    return session.execute(statement).scalar_one()


def count_vectors(session: Session, model_ids: Sequence[int]) -> int:
    """The vectors of all revisions, without those that were erased."""
    statement = select(func.count()).select_from(Vector).where(Vector.model_id.in_(model_ids))
    return session.execute(statement.where(Vector.revision_id.is_not(None))).scalar_one()


def delete_rows(session: Session, model_ids: Sequence[int]) -> None:
    """Delete the revisions of models, whose vectors were erased, their archives, former names and access to them, and
    what a team says about them.
    """
    for table in (Revision, Archive, FormerName, ModelAccess, TeamTag, TeamNote, Alias):
        session.execute(delete(table).where(table.model_id.in_(model_ids)))


def list_spaces(session: Session) -> list[tuple[SpaceRow, int]]:
    """All spaces, newest first, each with the number of its vectors."""
    counts = select(Vector.space_id, func.count().label("vectors")).where(~Vector.deleted).group_by(Vector.space_id)
    by_space = counts.subquery()
    statement = (
        select(SpaceRow, func.coalesce(by_space.c.vectors, 0))
        .outerjoin(by_space, by_space.c.space_id == SpaceRow.id)
        .order_by(SpaceRow.id.desc())
    )
    return [(space, vectors) for space, vectors in session.execute(statement)]


def get_space(session: Session, key: str) -> SpaceRow:
    """The space whose key begins like this. Raises `SpaceNotFound`, also if there are several."""
    rows = session.scalars(select(SpaceRow).where(SpaceRow.key.startswith(key)).limit(2)).all()
    if len(rows) != 1:
        problem = f"Several spaces have keys that begin with {key}" if rows else f"No space has the key {key}"
        raise SpaceNotFound(f"{problem}. GET /v1/admin/spaces lists all spaces with their keys.")
    return rows[0]


def find_active_reindex(session: Session, space: SpaceRow) -> int | None:
    """The id of the reindex that measures models into the space, while it is active."""
    statement = select(Reindex.id).where(Reindex.id == space.edition, Reindex.state.in_(ACTIVE_REINDEX))
    return session.execute(statement).scalar_one_or_none()


def count_stored_vectors(session: Session, space_id: int) -> int:
    statement = select(func.count()).select_from(StoredVector).where(StoredVector.space_id == space_id)
    return session.execute(statement).scalar_one()


_DELETE_VECTORS = text("""
    WITH page AS (SELECT id FROM vectors WHERE space_id = :space_id ORDER BY seq LIMIT :limit)
    DELETE FROM vectors USING page WHERE vectors.id = page.id RETURNING vectors.deleted
""")


def delete_vectors(session: Session, space_id: int, limit: int) -> tuple[int, int]:
    """Delete up to `limit` vectors of a space. Returns how many rows were deleted, and how many were not tombstones."""
    rows = session.execute(_DELETE_VECTORS, {"space_id": space_id, "limit": limit}).scalars().all()
    return len(rows), rows.count(False)


def delete_space(session: Session, space: SpaceRow) -> None:
    """Delete a space without vectors, with everything that was computed from them."""
    session.execute(delete(SpaceRow).where(SpaceRow.id == space.id))


_WITHOUT_VECTORS = text("""
    UPDATE models SET state = 'pending' WHERE state IN ('indexed', 'no_shift')
        AND NOT EXISTS (SELECT 1 FROM vectors WHERE vectors.model_id = models.id AND NOT deleted)
""")


def reset_models_without_vectors(session: Session) -> int:
    """Set the models that no space has any more to `pending`. Returns how many."""
    return session.execute(_WITHOUT_VECTORS).rowcount  # type: ignore[attr-defined]


def list_files_to_delete(session: Session, after: int, limit: int) -> list[tuple[int, str]]:
    """Up to `limit` removed models as pairs of seq and repo id, in the order of their removal, after a seq."""
    removed: ColumnElement[bool] = Model.removed_at.is_not(None) & (Model.source == Source.HUB)
    statement = select(Model.seq, Model.repo_id).where(removed, Model.seq > after).order_by(Model.seq).limit(limit)
    return [(seq, repo_id) for seq, repo_id in session.execute(statement) if seq is not None]


def list_space_keys(session: Session) -> set[str]:
    return set(session.scalars(select(SpaceRow.key)))
