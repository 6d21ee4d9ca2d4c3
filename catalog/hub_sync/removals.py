"""What the Hub takes away, and what it calls by another name."""

from __future__ import annotations

from sqlalchemy.orm import Session

from catalog.clusters.repository import members as cluster_members
from catalog.jobs.repository import jobs
from catalog.jobs.submissions import enqueue
from catalog.models.repository import models, names
from catalog.tables import Model, ModelState, Priority
from catalog.vectors.repository import feed


def remove(session: Session, model: Model) -> bool:
    """Take a model out of the index with this commit: its vectors become tombstones, what runs for it is not stored,
    its card and metadata are gone. Its name and its revisions stay. False where there was nothing left to take.
    """
    feed.lock_feed(session)
    waited = jobs.withdraw(session, model.id)
    if model.state == ModelState.REMOVED and not waited:
        return False
    feed.remove(session, model.id)
    cluster_members.leave(session, model.id)
    models.forget(session, model.id)
    session.refresh(model)
    return True


def follow(session: Session, model: Model, repo_id: str) -> None:
    """A model's repo is called `repo_id` now: it keeps its number and its history, and the old name leads to it.

    Where the new name has been met already: if nothing was ever stored under it, it makes room; otherwise that model
    stays, and this one leaves the index.
    """
    feed.lock_feed(session)
    newcomer = models.find(session, repo_id)
    if newcomer is None:
        names.rename(session, model, repo_id)
        return
    if newcomer.revision is not None:
        former = model.repo_id
        remove(session, model)
        names.lead(session, former, newcomer.id)
        return
    waited = jobs.any_active(session, newcomer.id)
    names.discard(session, newcomer)
    names.rename(session, model, repo_id)
    if waited:
        enqueue(session, model, None, Priority.CRAWL)
