"""From a name to a job."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.orm import Session

from catalog.auth.viewer import Viewer
from catalog.database import Database
from catalog.errors import FolderUnreadable, InvalidRepoId, NameTaken
from catalog.jobs.quotas import Quota
from catalog.jobs.repository import jobs
from catalog.models.repo_ref import LOCAL_OWNER, RepoRef
from catalog.models.repository import models
from catalog.queue import ring_after_commit
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
    ring: bool = True,
    token: bytes | None = None,
    reindex_id: int | None = None,
) -> tuple[Job, bool]:
    """The active job for that model and revision, made if there is none; and whether it was made. Every job comes
    through here; a model that was quarantined gives the job that did it.

    `base` is a guess where the model's own is not known; without `ring` the next sweep rings. Crawls, webhooks and
    reindexes give no quota: they count nowhere. With a sealed `token` the job is the submitter's alone. Raises
    `TooManyJobs` when the quota is used up.
    """
    submitter = quota.submitter if quota else None
    never_ended = model.state == ModelState.PENDING and token is None  # then nothing of it was quarantined
    whose = submitter if token else None
    if not never_ended and (dangerous := jobs.quarantined(session, model.id, whose)) is not None:
        return dangerous, False
    known = model.revision.base_repo if model.revision else base
    if token is not None and submitter is not None:
        job, made = jobs.submit_private(session, model, revision, viewer=submitter, token=token, base_hint=known)
    else:
        job, made = jobs.submit(
            session, model, revision, known, priority=priority, submitter=submitter, reindex_id=reindex_id
        )
    if made and quota is not None:
        quota.check(session)
    if made and ring:
        ring_after_commit(session, job.id)
    return job, made


def enqueue_alone(session: Session, model: Model, base: str, quota: Quota, viewer: Viewer) -> Job:
    """A job that wants a worker for itself, on a model that nobody sees; shown to the viewer alone, if there is one.

    Raises `TooManyJobs`.
    """
    job = jobs.submit_alone(session, model, base, submitter=quota.submitter, viewer=viewer.submitter)
    quota.check(session)
    ring_after_commit(session, job.id)
    return job


def follow_up(session: Session, job: Job, sha: str | None) -> None:
    """The worker's job ends here, having looked at `sha`. Where the Hub told of another commit while it ran, once
    more: that news found this job active, and made no other.
    """
    told = models.told(session, job.model_id)
    if job.requested_revision is None and told not in (None, sha, job.model.hub_sha):
        enqueue(session, session.get_one(Model, job.model_id), None, Priority.WEBHOOK)


def submit_repo(database: Database, ref: RepoRef, quota: Quota | None = None, token: bytes | None = None) -> Job:
    """The job that embeds a repo of the Hub for a person, as the Hub shows it to the sealed `token` where one is given.

    A commit that is indexed already gives the job that did it (`done`); a job that is still active for the same
    repo and revision is given again, and so is one that was quarantined. A submission with a token is answered with
    jobs of its own submitter alone. Asks nothing of the Hub. Raises `InvalidRepoId` for the owner `local`, and
    `TooManyJobs` when the quota is used up.
    """
    with database.transaction() as session:
        return submitted(session, ref, Priority.PERSON, quota, token)


def submitted(
    session: Session, ref: RepoRef, priority: Priority, quota: Quota | None = None, token: bytes | None = None
) -> Job:
    """As `submit_repo`, in a transaction of the caller's; its bell rings after the commit."""
    if ref.owner == LOCAL_OWNER:
        raise InvalidRepoId(
            f"The owner {LOCAL_OWNER!r} is for folders added on the command line: `deltadex add FOLDER`."
        )
    known = models.known_as(session, ref.repo_id)
    if token is not None:  # whether that submitter may read it, the worker finds out
        model = models.ensure(session, known.repo_id if known else ref.repo_id, Source.HUB, private=True)
        return enqueue(session, model, ref.revision, priority, quota=quota, token=token)[0]
    model = known or models.ensure(session, ref.repo_id, Source.HUB)
    if ref.pinned and ref.revision and vectors.is_indexed(session, model.id, ref.revision):
        done = jobs.latest_done(session, model.id, ref.revision)
        if done is not None:
            return done
    return enqueue(session, model, ref.revision, priority, quota=quota)[0]


def submit_folder(database: Database, folder: Path, name: str | None = None) -> Job:
    """The job that embeds a folder on this machine, known as `local/NAME` (by default the folder's own name).

    Raises `FolderUnreadable` when it is no folder, `InvalidRepoId` when its name cannot be a model's, and `NameTaken`
    when another folder has that name.
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise FolderUnreadable(f"{folder} is not a folder that can be read here.")
    name = name or folder.name
    try:
        ref = RepoRef(f"{LOCAL_OWNER}/{name}")
    except InvalidRepoId as error:
        raise InvalidRepoId(
            f"A model cannot be named {name!r}: letters, digits and . _ - only. Give another with --name."
        ) from error
    with database.transaction() as session:
        model = models.ensure(session, ref.repo_id, Source.FOLDER, str(folder))
        if model.folder != str(folder):
            raise NameTaken(f"{ref.repo_id} is {model.folder}. Give this folder another name with --name.")
        return enqueue(session, model, None, Priority.PERSON)[0]


def is_over(job: Job) -> bool:
    """Whether a job has reached a state that it will not leave by itself."""
    return job.state in TERMINAL
