"""What searches filter by, as a feed: a model's attributes are read again whenever `models.seq` moved."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Double, Text, case, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session, aliased

from catalog.auth.repository import STORED
from catalog.tables import Model, ModelAccess, Revision


@dataclass(frozen=True)
class Attributes:
    """A model as searches see it. `updated` is in seconds since 1970; None is what the Hub did not tell.

    A private one is seen by its `viewers` (hashes of keys), in place of the public model `twin`; of a public one both
    are None.
    """

    seq: int
    model_id: int
    owner: str
    base: str | None
    kind: str | None
    licence: str | None
    tags: list[str]
    downloads: int | None
    likes: int | None
    updated: float | None
    cluster: int | None
    viewers: list[str] | None = None
    twin: int | None = None


def changes(session: Session, after: int, limit: int) -> list[Attributes]:
    """The next models whose attributes changed, at most `limit`, in the order of `seq`."""
    twin = aliased(Model)
    viewers = select(func.array_agg(ModelAccess.submitter)).where(ModelAccess.model_id == Model.id).scalar_subquery()
    statement = (
        select(
            Model.seq,
            Model.id,
            Model.owner,
            Revision.base_repo,
            Revision.kind,
            Model.licence,
            Model.tags,
            Model.downloads,
            Model.likes,
            cast(func.extract("epoch", Model.hub_updated_at), Double),
            Model.cluster,
            case((Model.private, func.coalesce(viewers, cast([], ARRAY(Text))))),  # looked up for private ones alone
            twin.id,
        )
        .outerjoin(Revision, (Revision.model_id == Model.id) & Revision.current)
        .outerjoin(twin, Model.private & Model.state.in_(STORED) & (twin.repo_id == Model.repo_id) & ~twin.private)
        .where(Model.seq > after)
        .order_by(Model.seq)
        .limit(limit)
    )
    return [Attributes(*row) for row in session.execute(statement)]
