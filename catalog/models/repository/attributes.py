"""The attributes that searches filter by, as a feed ordered by `models.seq`, which grows with each change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Double, Text, case, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session, aliased

from catalog.auth.repository.access import STORED_STATES
from catalog.tables import Model, ModelAccess, Revision, TeamTag


@dataclass(frozen=True)
class Attributes:
    """A model as searches see it. `updated` is a Unix timestamp in seconds. None: the Hub does not provide the value.

    A private model is visible to its `viewers` (hashes of API keys), who see it instead of the model with the id
    `public_counterpart`. Both are None for public models.
    """

    seq: int
    model_id: int
    owner: str
    base: str | None
    kind: str | None
    license: str | None
    tags: list[str]
    downloads: int | None
    likes: int | None
    updated: float | None
    cluster: int | None
    viewers: list[str] | None = None
    public_counterpart: int | None = None
    team_tags: Sequence[str] = ()


def list_changes(session: Session, after: int, limit: int) -> list[Attributes]:
    """Up to `limit` models that changed after the sequence number `after`, ordered by `seq`."""
    counterpart = aliased(Model)
    viewers = select(func.array_agg(ModelAccess.submitter)).where(ModelAccess.model_id == Model.id).scalar_subquery()
    team_tags = select(func.array_agg(TeamTag.tag)).where(TeamTag.model_id == Model.id).scalar_subquery()
    statement = (
        select(
            Model.seq,
            Model.id,
            Model.owner,
            Revision.base_repo,
            Revision.kind,
            Model.license,
            Model.tags,
            Model.downloads,
            Model.likes,
            cast(func.extract("epoch", Model.hub_updated_at), Double),
            Model.cluster,
            case((Model.private, func.coalesce(viewers, cast([], ARRAY(Text))))),  # no subquery for public ones
            counterpart.id,
            func.coalesce(team_tags, cast([], ARRAY(Text))),
        )
        .outerjoin(Revision, (Revision.model_id == Model.id) & Revision.current)
        .outerjoin(
            counterpart,
            Model.private
            & Model.state.in_(STORED_STATES)
            & (counterpart.repo_id == Model.repo_id)
            & ~counterpart.private,
        )
        .where(Model.seq > after)
        .order_by(Model.seq)
        .limit(limit)
    )
    return [Attributes(*row) for row in session.execute(statement)]
