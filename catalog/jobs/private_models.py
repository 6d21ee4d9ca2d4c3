"""Private models: what jobs that came with a user's token have read, and who may see it."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from catalog.auth import repository as access
from catalog.auth.viewer import EVERYTHING
from catalog.database import Database
from catalog.errors import ModelNotFound
from catalog.jobs.repository import jobs
from catalog.models.repository import models
from catalog.tables import Job, Model, ModelAccess, Source
from catalog.vectors.repository import feed


def settle(session: Session, job: Job) -> None:
    """A job ends well: its submitter may see the private model that it read; or, what it read is for everybody, and
    the private model of that name is needed no more. The caller holds `vectors.lock_feed`.
    """
    if job.model.private:
        if job.viewer is not None:
            access.grant(session, job.model_id, job.viewer)
    elif (twin := access.private_model(session, job.model.repo_id)) is not None:
        withdraw(session, twin)


def withdraw(session: Session, model: Model) -> None:
    """Take a private model out of the index, and let nobody see it. The caller holds `vectors.lock_feed`."""
    if model.state in access.STORED:
        feed.remove(session, model.id)
        models.forget(session, model.id)
        access.revoke(session, model.id)


def assign(session: Session, job: Job, worker_id: int, *, private: bool) -> Job | None:
    """Have a running job be for the private or the public model of its repo. None when it is not this worker's any
    more.
    """
    if job.model.private == private:
        return job
    model = models.ensure(session, job.model.repo_id, Source.HUB, private=private)
    if not jobs.move(session, job.id, worker_id, model.id):
        return None
    models.drop_if_empty(session, job.model_id)
    return jobs.get(session, job.id, EVERYTHING)


def allow(database: Database, repo_id: str, submitter: str) -> Sequence[ModelAccess]:
    """Let a submitter see a private model; returns all that may. Raises `ModelNotFound`."""
    with database.transaction() as session:
        feed.lock_feed(session)
        model = _private(session, repo_id)
        access.grant(session, model.id, submitter, by_admin=True)
        return access.granted(session, model.id)


def forbid(database: Database, repo_id: str, submitter: str) -> Sequence[ModelAccess]:
    """Let a submitter see it no more, until a job of its own reads the repo again. Raises `ModelNotFound`."""
    with database.transaction() as session:
        feed.lock_feed(session)
        model = _private(session, repo_id)
        access.revoke(session, model.id, submitter)
        return access.granted(session, model.id)


def allowed(database: Database, repo_id: str) -> Sequence[ModelAccess]:
    """Who may see a private model. Raises `ModelNotFound`."""
    with database.transaction() as session:
        return access.granted(session, _private(session, repo_id).id)


def _private(session: Session, repo_id: str) -> Model:
    model = access.private_model(session, repo_id)
    if model is None or model.state not in access.STORED:
        raise ModelNotFound(f"There is no private model {repo_id}: none was read with a user's token.")
    return model
