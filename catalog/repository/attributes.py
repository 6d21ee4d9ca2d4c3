"""What searches filter by, as a feed: a model's attributes are read again whenever `models.seq` moved."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Double, cast, func, select
from sqlalchemy.orm import Session

from catalog.tables import Model, Revision


@dataclass(frozen=True)
class Attributes:
    """A model as searches see it. `updated` is in seconds since 1970; None is what the Hub did not tell."""

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


def changes(session: Session, after: int, limit: int) -> list[Attributes]:
    """The next models whose attributes changed, at most `limit`, in the order of `seq`."""
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
        )
        .outerjoin(Revision, (Revision.model_id == Model.id) & Revision.current)
        .where(Model.seq > after)
        .order_by(Model.seq)
        .limit(limit)
    )
    return [Attributes(*row) for row in session.execute(statement)]
