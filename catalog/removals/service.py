"""Removal of models by an admin. The name stays, so that crawls and webhooks do not bring the model back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func
from sqlalchemy.orm import Session

from catalog.clusters.repository import members as cluster_members
from catalog.database import Database
from catalog.errors import ModelNotFound
from catalog.jobs.repository import jobs
from catalog.models.repository import models
from catalog.removals import repository as removals
from catalog.vectors.repository import feed


@dataclass(frozen=True)
class Removal:
    """What was removed: the current name of the model, how many revisions and vectors, and the jobs that were
    cancelled.
    """

    repo_id: str
    revisions: int
    vectors: int
    jobs: list[int]


def remove(database: Database, repo_id: str) -> Removal:
    """Remove a model, public and private, with everything that was measured and stored about it. Raises
    `ModelNotFound`.
    """
    with database.transaction(timeouts=False) as session:
        feed.lock_feed(session)
        rows = removals.list_by_name(session, repo_id)
        if not rows:
            raise ModelNotFound(f"{repo_id} is not in this catalog. GET /v1/models lists the models.")
        revisions, vectors, cancelled = erase(session, [model.id for model in rows])
        return Removal(rows[0].repo_id, revisions, vectors, cancelled)


def erase(session: Session, model_ids: Sequence[int]) -> tuple[int, int, list[int]]:
    """Erase models. Returns how many revisions and vectors they had, and the jobs that were cancelled. The caller holds
    `feed.lock_feed`, so no worker stores a result of a cancelled job.
    """
    revisions, vectors = removals.count_revisions(session, model_ids), removals.count_vectors(session, model_ids)
    cancelled = jobs.cancel_for_models(session, model_ids)
    cluster_members.remove_from_all_runs(session, model_ids)
    feed.erase(session, model_ids)
    removals.delete_rows(session, model_ids)
    models.clear_metadata(session, model_ids, folder=None, removed_at=func.now())
    return revisions, vectors, cancelled
