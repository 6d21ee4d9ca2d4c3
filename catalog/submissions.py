"""From a name to a job."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from sqlalchemy.orm import Session

from catalog.database import Database
from catalog.errors import FolderUnreadable, InvalidRepoId, NameTaken
from catalog.queue import ring_after_commit
from catalog.refs import LOCAL_OWNER, RepoRef
from catalog.repository import jobs, models, names, vectors
from catalog.tables import Job, JobState, Model, Source


class Origin(StrEnum):
    """Who wants a model embedded."""

    PERSON = "person"
    WEBHOOK = "webhook"
    CRAWL = "crawl"


def enqueue(
    session: Session,
    model: Model,
    revision: str | None,
    origin: Origin,  # nothing depends on it yet
    *,
    base: str | None = None,
    ring: bool = True,
) -> tuple[Job, bool]:
    """The active job for that model and revision, made if there is none; and whether it was made. Every job comes
    through here. `base` is a guess where the model's own is not known; without `ring` the next sweep rings.
    """
    known = model.revision.base_repo if model.revision else base
    job, made = jobs.submit(session, model, revision, base_hint=known)
    if made and ring:
        ring_after_commit(session, job.id)
    return job, made


def follow_up(session: Session, job: Job, sha: str | None) -> None:
    """The worker's job ends here, having looked at `sha`. Where the Hub told of another commit while it ran, once
    more: that news found this job active, and made no other.
    """
    told = models.told(session, job.model_id)
    if job.requested_revision is None and told not in (None, sha, job.model.hub_sha):
        enqueue(session, session.get_one(Model, job.model_id), None, Origin.WEBHOOK)


def submit_repo(database: Database, ref: RepoRef) -> Job:
    """The job that embeds a repo of the Hub.

    A commit that is indexed already gives the job that did it (`done`); a job that is still active for the same
    repo and revision is given again. Asks nothing of the Hub. Raises `InvalidRepoId` for the owner `local`.
    """
    if ref.owner == LOCAL_OWNER:
        raise InvalidRepoId(
            f"The owner {LOCAL_OWNER!r} is for folders added on the command line: `deltadex add FOLDER`."
        )
    with database.transaction() as session:
        renamed = names.current(session, [ref.repo_id])
        model = models.ensure(session, renamed.get(ref.repo_id, ref.repo_id), Source.HUB)
        if ref.pinned and ref.revision and vectors.is_indexed(session, model.id, ref.revision):
            done = jobs.latest_done(session, model.id, ref.revision)
            if done is not None:
                return done
        return enqueue(session, model, ref.revision, Origin.PERSON)[0]


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
        return enqueue(session, model, None, Origin.PERSON)[0]


def is_over(job: Job) -> bool:
    """Whether a job has reached a state that it will not leave by itself."""
    return job.state in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)
