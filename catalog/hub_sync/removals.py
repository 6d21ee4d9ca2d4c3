"""Removals and renames of repos on the Hub."""

from __future__ import annotations

from sqlalchemy.orm import Session

from catalog.clusters.repository import members as cluster_members
from catalog.jobs.repository import jobs
from catalog.jobs.submissions import enqueue
from catalog.models.repository import curation, models, names
from catalog.tables import Model, ModelState, Priority
from catalog.vectors.repository import feed


def remove_model(session: Session, model: Model) -> bool:
    """Remove a model from the index: its vectors become tombstones, its jobs are cancelled, and its card and metadata
    are deleted. Its name and its revisions stay. False if it was removed before.
    """
    feed.lock_feed(session)
    cancelled = jobs.cancel_for_models(session, [model.id])
    if model.state == ModelState.REMOVED and not cancelled:
        return False
    feed.remove(session, model.id)
    cluster_members.remove_from_all_runs(session, [model.id])
    models.clear_metadata(session, [model.id])
    session.refresh(model)
    return True


def follow_rename(session: Session, model: Model, repo_id: str) -> None:
    """Rename a model to `repo_id`. It keeps its id and its history, and the former name refers to it.

    If there is a model with the new name already, it is deleted if nothing was stored for it; otherwise it stays, and
    `model` is removed from the index. The one that keeps the name gets the tags, notes and aliases of both. A model
    that an admin removed stays removed under its new name.
    """
    feed.lock_feed(session)
    existing = models.find_public_row(session, repo_id)
    if existing is None:
        names.rename(session, model, repo_id)
        return
    if existing.revision is not None:
        former = model.repo_id
        remove_model(session, model)
        names.add_former_name(session, former, existing.id)
        curation.move(session, model.id, existing.id)
        models.bump_seq(session, existing.id)
        return
    had_active_job = jobs.has_active(session, existing.id)
    curation.move(session, existing.id, model.id)
    names.delete_empty(session, existing)
    names.rename(session, model, repo_id)
    if had_active_job and model.removed_at is None:
        enqueue(session, model, None, Priority.CRAWL)
