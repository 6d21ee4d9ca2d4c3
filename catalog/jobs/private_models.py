"""Private models: models that jobs read with a user's Hub token, and the access to them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from catalog.auth.repository import access, keys
from catalog.auth.viewer import ADMIN
from catalog.database import Database
from catalog.errors import ModelNotFound
from catalog.jobs.repository import jobs
from catalog.models.repository import models
from catalog.tables import ApiKey, Job, Model, ModelAccess, Source
from catalog.vectors.repository import feed


def finish_private_job(session: Session, job: Job) -> None:
    """Settle access when a job finishes: grant its submitter access to the private model that it read; or, if the
    model turned out to be public, withdraw the private model of the same repo. The caller holds `feed.lock_feed`.
    """
    if job.model.private:
        if job.viewer is not None:
            access.grant(session, job.model_id, job.viewer)
    elif (counterpart := access.find_private_model(session, job.model.repo_id)) is not None:
        withdraw_private_model(session, counterpart)


def withdraw_private_model(session: Session, model: Model) -> None:
    """Remove a private model from the index and revoke all access to it. The caller holds `feed.lock_feed`."""
    if model.state in access.STORED_STATES:
        feed.remove(session, model.id)
        models.clear_metadata(session, [model.id])
        access.revoke(session, model.id)


def reassign_job(session: Session, job: Job, worker_id: int, *, private: bool) -> Job | None:
    """Reassign a running job to the private or the public model of its repo. Returns None if this worker no longer has
    the claim.
    """
    if job.model.private == private:
        return job
    model = models.get_or_create(session, job.model.repo_id, Source.HUB, private=private)
    if not jobs.reassign(session, job.id, worker_id, model.id):
        return None
    models.delete_if_empty(session, job.model_id)
    return jobs.get(session, job.id, ADMIN)


def grant_access(database: Database, repo_id: str, prefix: str) -> Sequence[tuple[ModelAccess, ApiKey | None]]:
    """Grant the API key with a prefix access to a private model. Returns all access to it.

    Raises `ModelNotFound` and `KeyNotFound`.
    """
    with database.transaction() as session:
        feed.lock_feed(session)
        model = _get_private_model(session, repo_id)
        access.grant(session, model.id, keys.get(session, prefix).hash, by_admin=True)
        return access.list_access(session, model.id)


def revoke_access(database: Database, repo_id: str, prefix: str) -> Sequence[tuple[ModelAccess, ApiKey | None]]:
    """Revoke an API key's access to a private model; a later job of that key that reads the repo grants it again.
    Returns the remaining access. Raises `ModelNotFound` and `KeyNotFound`.
    """
    with database.transaction() as session:
        feed.lock_feed(session)
        model = _get_private_model(session, repo_id)
        access.revoke(session, model.id, keys.get(session, prefix).hash)
        return access.list_access(session, model.id)


def list_access(database: Database, repo_id: str) -> Sequence[tuple[ModelAccess, ApiKey | None]]:
    """Which API keys have access to a private model. Raises `ModelNotFound`."""
    with database.transaction() as session:
        return access.list_access(session, _get_private_model(session, repo_id).id)


def _get_private_model(session: Session, repo_id: str) -> Model:
    model = access.find_private_model(session, repo_id)
    if model is None or model.state not in access.STORED_STATES:
        raise ModelNotFound(f"There is no private model {repo_id}. Public models have no access list.")
    return model
