"""The attributes that searches filter by, as a feed ordered by `models.seq`, which grows with each change.

The cluster of a model is not a column of the model: it is the model's membership in the current run of a space, so a
run is published without a change of any model. Readers of the feed ask for the runs, `spaces.list_filter_runs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Double, Text, case, cast, func, select, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session, aliased

from catalog.auth.repository.access import STORED_STATES
from catalog.tables import ClusterMember, Model, ModelAccess, Revision, TeamTag

MEMBERS_PER_PAGE = 50_000


@dataclass(frozen=True)
class Attributes:
    """A model as searches see it. `updated` is a Unix timestamp in seconds. None: the Hub does not provide the value.

    A private model is visible to its `viewers` (hashes of API keys), who see it instead of the model with the id
    `public_counterpart`. Both are None for public models.

    `cluster` is the model's cluster in the run `run`. Both are None if no run that searches filter by clustered it.
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
    run: int | None
    cluster: int | None
    viewers: list[str] | None = None
    public_counterpart: int | None = None
    team_tags: Sequence[str] = ()


def list_members(session: Session, run_id: int) -> tuple[np.ndarray, np.ndarray]:
    """The models (m,) that a run assigned to clusters, and their clusters (m,), read in pages. Noise is left out."""
    is_clustered = (ClusterMember.run_id == run_id) & ClusterMember.cluster_id.is_not(None)
    statement = select(ClusterMember.model_id, ClusterMember.cluster_id).where(is_clustered)
    statement = statement.order_by(ClusterMember.model_id).limit(MEMBERS_PER_PAGE)
    pages = [np.empty((2, 0), np.int64)]
    while not len(pages) > 1 or pages[-1].shape[1] == MEMBERS_PER_PAGE:
        after = pages[-1][0].max(initial=0).item()
        page = statement.where(ClusterMember.model_id > after).subquery()
        # two arrays in place of a row for each member: they are decoded without the GIL of the process being held long
        row = session.execute(select(func.array_agg(page.c.model_id), func.array_agg(page.c.cluster_id))).one()
        pages.append(np.array([column or [] for column in row], np.int64))
    model_ids, clusters = np.concatenate(pages, axis=1)
    return model_ids, clusters


def list_changes(session: Session, after: int, limit: int, runs: Sequence[int] = ()) -> list[Attributes]:
    """Up to `limit` models that changed after the sequence number `after`, ordered by `seq`, with their clusters in the
    `runs`. A model that several of them clustered is in the cluster of the newest.
    """
    membership = (
        select(ClusterMember.run_id, ClusterMember.cluster_id)
        .where(ClusterMember.model_id == Model.id, ClusterMember.run_id.in_(runs))
        .order_by(ClusterMember.run_id.desc())
        .limit(1)
        .lateral()
    )
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
            membership.c.run_id,
            membership.c.cluster_id,
            case((Model.private, func.coalesce(viewers, cast([], ARRAY(Text))))),  # no subquery for public ones
            counterpart.id,
            func.coalesce(team_tags, cast([], ARRAY(Text))),
        )
        .select_from(Model)
        .outerjoin(membership, true())
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
