"""Submission of jobs: from a model's name to a queued job."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from catalog.auth.viewer import Viewer
from catalog.blocks import repository as blocks
from catalog.database import Database
from catalog.errors import FolderUnreadable, InvalidRepoId, InvalidRevision, NameTaken
from catalog.jobs.quotas import Quota
from catalog.jobs.repository import jobs
from catalog.models.repo_ref import ALIAS_OWNER, LOCAL_OWNER, RepoRef, check_base_id
from catalog.models.repository import models
from catalog.quarantine import repository as quarantine
from catalog.quarantine.repository import QuarantineKey
from catalog.queue import enqueue_after_commit
from catalog.tables import TERMINAL, Job, Model, ModelState, Priority, Source
from catalog.vectors.repository import vectors


def enqueue(
    session: Session,
    model: Model,
    revision: str | None,
    priority: Priority,
    *,
    quota: Quota | None = None,
    base: str | None = None,
    base_hint: str | None = None,
    notify: bool = True,
    token: bytes | None = None,
    reindex_id: int | None = None,
) -> tuple[Job, bool]:
    """Return the active job for the model, the revision and the base (any, if `base` is None), created if there is
    none, and whether it was created. Every job that measures a model is created here. If the revision is a
    quarantined commit, or the repo is quarantined at every commit, the quarantined job is returned. Otherwise the
    worker finds out the commit, and fails the job if that is quarantined.

    `base` is the base that the submission names, and `base_hint` a guess for a model without a revision. Without
    `notify`, the next sweep sends the notification. Crawls, webhooks and reindexes pass no quota: their jobs are not
    counted. With a sealed `token`, only the submitter may see the job. A model that an admin removed is an ordinary one
    again, so crawls and webhooks check that first. Raises `TooManyJobs` if the quota is exceeded.
    """
    submitter = quota.submitter if quota else None
    viewer = submitter if token else None
    is_new = model.state == ModelState.PENDING and token is None  # no job of it has ended, so none is quarantined
    if not is_new and (quarantined := _find_quarantined(session, model, revision, base, viewer)) is not None:
        return quarantined, False
    if model.removed_at is not None:
        models.readmit(session, model)
    hint = base or (model.revision.base_repo if model.revision else base_hint)
    if token is not None and submitter is not None:
        job, created = jobs.submit_private(session, model, revision, hint, base=base, viewer=submitter, token=token)
    else:
        job, created = jobs.submit(
            session, model, revision, hint, base=base, priority=priority, submitter=submitter, reindex_id=reindex_id
        )
    if created and quota is not None:
        quota.check(session)
    if created and notify:
        enqueue_after_commit(session, job.id)
    return job, created


def _find_quarantined(
    session: Session, model: Model, revision: str | None, base: str | None, viewer: str | None
) -> Job | None:
    """The quarantined job that answers a submission."""
    if quarantine.find(session, QuarantineKey.of_repo(model.repo_id, revision, base)) is None:
        return None
    return jobs.find_quarantined(session, model.id, viewer)


def enqueue_exclusive(session: Session, model: Model, base: str, quota: Quota, viewer: Viewer) -> Job:
    """Create a job that runs exclusively, on the hidden model of a task, selection or merge. With a viewer, only that
    viewer may see the job. Raises `TooManyJobs`, `TooManyResults`.
    """
    quota.check_results(session)
    job = jobs.submit_exclusive(session, model, base, submitter=quota.submitter, viewer=viewer.submitter)
    quota.check_exclusive(session)
    enqueue_after_commit(session, job.id)
    return job


def follow_up(session: Session, job: Job, sha: str | None) -> None:
    """Enqueue another job after a job that measured `sha`, if the Hub announced a newer commit while it ran: a webhook
    creates no second job while one is active.
    """
    latest = models.latest_known_sha(session, job.model_id)
    if job.requested_revision is None and latest not in (None, sha, job.model.hub_sha):
        enqueue(session, session.get_one(Model, job.model_id), None, Priority.WEBHOOK)


def submit_repo(
    database: Database, ref: RepoRef, quota: Quota | None = None, token: bytes | None = None, base: str | None = None
) -> Job:
    """Submit a repo of the Hub for a user, and return its job. With a sealed `token`, the repo is read with it. `base`
    is tried as its base model before those that its files name.

    If the commit is already indexed, the job that measured it is returned (`done`); if a job for the same repo and
    revision is active or quarantined, that job is returned. Both must be of the same base, if one is given. With a
    token, only the submitter's own jobs are considered. Sends no request to the Hub. Raises `InvalidRepoId` for the
    owner `local` and for a name that no base can have, `ModelBlocked`, and `TooManyJobs` if the quota is exceeded.
    """
    try:
        with database.transaction() as session:
            return enqueue_repo(session, ref, Priority.USER, quota, token, base)
    except IntegrityError:  # the retention has just deleted the model, which was never measured
        with database.transaction() as session:
            return enqueue_repo(session, ref, Priority.USER, quota, token, base)


def enqueue_repo(
    session: Session,
    ref: RepoRef,
    priority: Priority,
    quota: Quota | None = None,
    token: bytes | None = None,
    base: str | None = None,
) -> Job:
    """`submit_repo` in the caller's transaction. The notification is sent after the commit."""
    check_base_id(base)
    if (ref.revision or "").startswith("refs/"):
        raise InvalidRevision(
            f"{ref.revision!r} is a ref such as a pull request, which anyone can open. Name a branch, tag or commit "
            "of the repo."
        )
    if ref.owner == LOCAL_OWNER:
        raise InvalidRepoId(
            f"The owner {LOCAL_OWNER!r} is reserved for local folders: add one with `deltadex add FOLDER`."
        )
    if ref.owner == ALIAS_OWNER:
        raise InvalidRepoId(f"{ref.repo_id} is an alias. Submit the model by the name that it has on the Hub.")
    existing = models.find_by_any_name(session, ref.repo_id)
    blocks.check(session, ref.repo_id, existing.license if existing else None)
    if existing is not None and existing.repo_id != ref.repo_id:
        blocks.check(session, existing.repo_id)
    if token is not None:  # the worker finds out whether the token may read the repo
        model = models.get_or_create(session, existing.repo_id if existing else ref.repo_id, Source.HUB, private=True)
        return enqueue(session, model, ref.revision, priority, quota=quota, base=base, token=token)[0]
    model = existing or models.get_or_create(session, ref.repo_id, Source.HUB)
    if ref.pinned and ref.revision and vectors.is_indexed(session, model.id, ref.revision, base):
        done = jobs.find_latest_done(session, model.id, ref.revision, base)
        if done is not None:
            return done
    return enqueue(session, model, ref.revision, priority, quota=quota, base=base)[0]


def submit_folder(database: Database, folder: Path, name: str | None = None, base: str | None = None) -> Job:
    """Submit a folder on this machine as the model `local/NAME` (by default the folder's own name), and return its job.
    `base` is tried as its base model before those that its files name.

    Raises `FolderUnreadable` if it is not a folder, `InvalidRepoId` if its name or its base is not a valid model name,
    `ModelBlocked`, and `NameTaken` if another folder has that name.
    """
    check_base_id(base)
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise FolderUnreadable(f"{folder} is not a readable folder on this machine.")
    name = name or folder.name
    try:
        ref = RepoRef(f"{LOCAL_OWNER}/{name}")
    except InvalidRepoId as error:
        raise InvalidRepoId(
            f"{name!r} is not a valid model name: use letters, digits and . _ - only. Choose another name with --name."
        ) from error
    with database.transaction() as session:
        blocks.check(session, ref.repo_id)
        model = models.get_or_create(session, ref.repo_id, Source.FOLDER, str(folder))
        if model.removed_at is not None:
            models.readmit(session, model, str(folder))
        if model.folder != str(folder):
            raise NameTaken(f"{ref.repo_id} is the folder {model.folder}. Choose another name with --name.")
        return enqueue(session, model, None, Priority.USER, base=base)[0]


def is_finished(job: Job) -> bool:
    """Whether a job is done, failed or cancelled."""
    return job.state in TERMINAL
