"""Jobs: submission, lookup, cancellation and retries. Each change of state is one statement with the expected state in
its WHERE clause, so two conflicting changes cannot both succeed. For claims see `claims`, for attempts `attempts`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Select, case, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased
from sqlalchemy.orm.attributes import set_committed_value

from catalog import locks
from catalog.auth.repository.owned_rows import visible_to
from catalog.auth.viewer import ADMIN, PUBLIC, Viewer
from catalog.database import newest_first, seconds
from catalog.errors import HubTokenRequired, JobNotFound, Quarantined
from catalog.jobs.repository.attempts import ENDING_VALUES, REQUEUE_VALUES, with_attempt
from catalog.locks import Lock
from catalog.tables import ACTIVE, ACTIVE_REINDEX, RUNNING, Job, JobState, Model, Priority, Reindex, Task, TaskRun


def submit(
    session: Session,
    model: Model,
    revision: str | None,
    base_hint: str | None = None,
    *,
    base: str | None = None,
    priority: Priority = Priority.USER,
    submitter: str | None = None,
    reindex_id: int | None = None,
) -> tuple[Job, bool]:
    """Return the active job for the model and revision (of this reindex, or of none), created if there is none, and
    whether it was created. A submission that names a base is answered by a job that names the same one, and one that
    names none by any job.

    A queued job is raised to the priority given here, and is due at once if it was delayed before its first attempt.
    Raises `HubTokenRequired` for a private model: its job would be public, and could not read the repo.
    """
    if model.private:
        raise HubTokenRequired(
            "A private model is read with its submitter's Hub token. Submit the model again with the token."
        )
    values = {
        "model_id": model.id,
        "requested_revision": revision,
        "requested_base": base,
        "base_hint": base_hint,
        "priority": priority,
        "submitter": submitter,
        "reindex_id": reindex_id,
    }
    row = select(*[literal(value, Job.__table__.c[name].type) for name, value in values.items()])
    new = row.where(~_active(model.id, revision, reindex_id, base).exists())
    statement = insert(Job).from_select(list(values), new).on_conflict_do_nothing().returning(Job)
    while True:
        created = session.scalars(statement).one_or_none()
        if created is not None:
            set_committed_value(created, "model", model)
            return created, True
        # the conflicting job may have ended since; then the next insert succeeds
        if (job := find_active(session, model.id, revision, reindex_id, base)) is not None:
            delayed = job.attempts == 0 and job.available_at > job.created_at
            if job.state == JobState.QUEUED and (job.priority > priority or delayed):
                changes = {"priority": func.least(Job.priority, priority)}
                if delayed:
                    changes["available_at"] = func.least(Job.available_at, func.now())
                session.execute(update(Job).where(Job.id == job.id, Job.state == JobState.QUEUED).values(changes))
                return get(session, job.id, ADMIN), False
            return job, False


def delay(session: Session, job_id: int, pause: float) -> None:
    """Let a queued job be due in `pause` seconds. The sweep sends its notification at that time."""
    statement = update(Job).where(Job.id == job_id, Job.state == JobState.QUEUED)
    session.execute(statement.values(available_at=func.now() + seconds(pause)))


def submit_private(
    session: Session,
    model: Model,
    revision: str | None,
    base_hint: str | None = None,
    *,
    base: str | None = None,
    viewer: str,
    token: bytes,
) -> tuple[Job, bool]:
    """Return the viewer's own active job for the repo, the revision and the base (any, if the submission names none),
    created on its private `model` if there is none, and whether it was created. The job keeps the sealed token that was
    submitted last.
    """
    lock_submitter(session, viewer)  # so that concurrent requests do not create one job each
    same_revision = func.coalesce(Job.requested_revision, "") == (revision or "")
    same_repo = select(Model.id).where(Model.repo_id == model.repo_id)  # the job may have moved to the public model
    owned = Job.model_id.in_(same_repo) & (Job.viewer == viewer) & (Job.submitter == viewer) & same_revision
    if base is not None:
        owned &= Job.requested_base == base
    statement = update(Job).where(owned, Job.state.in_(ACTIVE)).values(token=token, token_at=func.now())
    job_id = session.execute(statement.returning(Job.id)).scalars().first()
    if job_id is not None:
        return get(session, job_id, ADMIN), False
    values = {
        "model_id": model.id,
        "requested_revision": revision,
        "requested_base": base,
        "base_hint": base_hint,
        "submitter": viewer,
        "viewer": viewer,
        "token": token,
        "token_at": func.now(),
    }
    created_id = session.execute(insert(Job).values(**values).returning(Job.id)).scalar_one()
    return get(session, created_id, ADMIN), True


def submit_exclusive(session: Session, model: Model, base_hint: str, *, submitter: str, viewer: str | None) -> Job:
    """Create a job that runs with nothing else on its worker."""
    values = {"model_id": model.id, "base_hint": base_hint, "submitter": submitter, "viewer": viewer, "exclusive": True}
    job_id = session.execute(insert(Job).values(**values).returning(Job.id)).scalar_one()
    return get(session, job_id, ADMIN)


def reassign(session: Session, job_id: int, worker_id: int, model_id: int) -> bool:
    """Reassign a running job to another model. False if the worker no longer has the claim."""
    claimed = update(Job).where(Job.id == job_id, Job.worker_id == worker_id, Job.state.in_(RUNNING))
    return session.execute(claimed.values(model_id=model_id).returning(Job.id)).scalar_one_or_none() is not None


def find_active(
    session: Session, model_id: int, revision: str | None, reindex_id: int | None = None, base: str | None = None
) -> Job | None:
    """The oldest queued or running job without a Hub token for this model and revision, of this reindex or of none,
    that names the base, if one is given.
    """
    statement = _active(model_id, revision, reindex_id, base).order_by(Job.id).limit(1)
    return session.scalars(statement).one_or_none()


def _active(model_id: int, revision: str | None, reindex_id: int | None, base: str | None) -> Select[Job]:
    statement = select(Job).where(
        Job.model_id == model_id,
        func.coalesce(Job.requested_revision, "") == (revision or ""),
        func.coalesce(Job.reindex_id, 0) == (reindex_id or 0),
        Job.state.in_(ACTIVE),
        Job.token_at.is_(None),
    )
    return statement if base is None else statement.where(Job.requested_base == base)


def get(session: Session, job_id: int, viewer: Viewer = PUBLIC) -> Job:
    """Return a job that the viewer may see. Raises `JobNotFound`."""
    job = session.get(Job, job_id, populate_existing=True)
    if job is None or not viewer.can_see(job.viewer):
        raise JobNotFound(f"There is no job {job_id}. GET /v1/jobs lists the jobs.")
    return job


def list_page(
    session: Session,
    *,
    state: JobState | None = None,
    before: int | None = None,
    limit: int = 50,
    viewer: Viewer = PUBLIC,
) -> list[Job]:
    """Up to `limit` jobs with an id below `before`, newest first."""
    statement = select(Job).where(visible_to(Job.viewer, viewer))
    if state is not None:
        statement = statement.where(Job.state == state)
    return list(session.scalars(newest_first(statement, Job.id, before, limit)))


def find_latest_done(session: Session, model_id: int, sha: str, base: str | None = None) -> Job | None:
    """The newest job that is done for this commit, preferably one that names the base."""
    statement = select(Job).where(Job.model_id == model_id, Job.sha == sha, Job.state == JobState.DONE)
    names_base = Job.requested_base.is_not_distinct_from(base)
    return session.scalars(statement.order_by(names_base.desc(), Job.id.desc()).limit(1)).one_or_none()


def find_quarantined(session: Session, model_id: int, viewer: str | None = None) -> Job | None:
    """The newest quarantined job of a model: among the public jobs without a viewer, else among the viewer's own jobs
    with a Hub token.
    """
    quarantined = (Job.state == JobState.FAILED) & (Job.error_code == Quarantined.code)
    statement = select(Job).where(quarantined, Job.viewer.is_not_distinct_from(viewer))
    if viewer is None:
        statement = statement.where(Job.model_id == model_id)
    else:  # the job may have moved to the public model of the same repo
        repo_id = select(Model.repo_id).where(Model.id == model_id).scalar_subquery()
        statement = statement.where(Job.model_id.in_(select(Model.id).where(Model.repo_id == repo_id)))
    return session.scalars(statement.order_by(Job.id.desc()).limit(1)).one_or_none()


def cancel(session: Session, job_id: int) -> bool:
    """Cancel a queued or running job; from then on no worker can store a result for it. False if it had ended."""
    running = Job.state.in_(RUNNING)
    values = {"state": JobState.CANCELLED, **ENDING_VALUES, "error_code": None, "error_message": None}
    history = case((running, with_attempt("cancelled")), else_=Job.history)
    statement = update(Job).where(Job.id == job_id, Job.state.in_(ACTIVE)).values(**values, history=history)
    return session.execute(statement.returning(Job.id)).scalar_one_or_none() is not None


def release_from_quarantine(session: Session, job_id: int, message: str) -> bool:
    """Release a quarantined job that came with a Hub token, so that its submitter can submit the model again; the token
    itself is deleted. False if there is no such job.
    """
    quarantined = (Job.id == job_id) & Job.viewer.is_not(None) & (Job.error_code == Quarantined.code)
    statement = update(Job).where(quarantined).values(error_code=HubTokenRequired.code, error_message=message)
    return session.execute(statement.returning(Job.id)).scalar_one_or_none() is not None


def _is_still_needed() -> ColumnElement[bool]:
    """Whether the reindex of a job is active, if it has one, its task still has its examples, and no admin removed its
    model.
    """
    active = select(Reindex.id).where(Reindex.id == Job.reindex_id, Reindex.state.in_(ACTIVE_REINDEX))
    removed = select(Model.id).where(Model.id == Job.model_id, Model.removed_at.is_not(None))
    return (Job.reindex_id.is_(None) | active.exists()) & ~_task_without_examples().exists() & ~removed.exists()


def _task_without_examples() -> Select[int]:
    """The task that a job would train on, if its examples were deleted."""
    run_of_job = TaskRun.model_id == Job.model_id
    return select(Task.id).join(TaskRun, TaskRun.task_id == Task.id).where(run_of_job, Task.examples.is_(None))


def find_task_without_examples(session: Session, job_id: int) -> int | None:
    """The id of a job's task, if the job cannot be retried because the examples of the task were deleted."""
    return session.execute(_task_without_examples().where(Job.id == job_id)).scalar_one_or_none()


_RETRY_VALUES = {**REQUEUE_VALUES, "attempts": 0, "worker_deaths": 0, "started_at": None, "finished_at": None}


def requeue(session: Session, job_id: int, submitter: str | None) -> bool:
    """Queue a failed or cancelled job again as if it were new, with its history. False if it is neither, came with a
    Hub token, or belongs to a reindex that has ended or to a task whose examples were deleted.
    """
    retriable = Job.state.in_((JobState.FAILED, JobState.CANCELLED)) & Job.token_at.is_(None)
    statement = update(Job).where(Job.id == job_id, retriable, _is_still_needed())
    values = {**_RETRY_VALUES, "submitter": submitter, "error_code": None, "error_message": None}
    return session.execute(statement.values(**values).returning(Job.id)).scalar_one_or_none() is not None


def requeue_by_error(session: Session, code: str, limit: int) -> list[int]:
    """Queue up to `limit` failed jobs with that error code again, oldest first. Jobs that came with a Hub token are
    left out, and so are those superseded by a later or an active job for the same model and revision.
    """
    other = aliased(Job)
    same_revision = func.coalesce(other.requested_revision, "") == func.coalesce(Job.requested_revision, "")
    same_reindex = func.coalesce(other.reindex_id, 0) == func.coalesce(Job.reindex_id, 0)
    later_or_active = (other.id > Job.id) | other.state.in_(ACTIVE)
    superseding = select(other.id).where(other.model_id == Job.model_id, same_revision, same_reindex, later_or_active)
    failed = (
        select(Job.id)
        .where(Job.state == JobState.FAILED, Job.error_code == code, Job.token_at.is_(None))
        .where(~superseding.exists(), _is_still_needed())
        .order_by(Job.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("failed_jobs")
    )
    values = {**_RETRY_VALUES, "submitter": None, "error_code": None, "error_message": None}
    statement = update(Job).where(Job.id.in_(select(failed.c.id))).values(**values)
    return sorted(session.execute(statement.returning(Job.id)).scalars())


def count_active(session: Session, submitter: str, limit: int, *, exclusive: bool = False) -> int:
    """Count the queued and running jobs of a submitter, or only those that run exclusively, up to `limit`."""
    active = select(Job.id).where(Job.submitter == submitter, Job.state.in_(ACTIVE))
    if exclusive:
        active = active.where(Job.exclusive)
    return session.execute(select(func.count()).select_from(active.limit(limit).subquery())).scalar_one()


def lock_submitter(session: Session, submitter: str) -> None:
    """Serialize the transactions that count a submitter's jobs; the lock is held until the transaction ends."""
    locks.acquire(session, Lock.SUBMITTER_JOBS, submitter)


def cancel_for_models(session: Session, model_ids: Sequence[int]) -> list[int]:
    """Cancel the queued and running jobs of models. Returns the ids of the cancelled jobs."""
    statement = select(Job.id).where(Job.model_id.in_(model_ids), Job.state.in_(ACTIVE))
    return [job_id for job_id in session.scalars(statement).all() if cancel(session, job_id)]


def has_active(session: Session, model_id: int) -> bool:
    """Whether a model has a queued or running job."""
    return session.execute(select(Job.id).where(Job.model_id == model_id, Job.state.in_(ACTIVE))).first() is not None


def count_by_state(session: Session) -> dict[JobState, int]:
    """Count the public jobs in each state."""
    all_jobs = select(Job.state, func.count()).group_by(Job.state)
    # the private ones are few, and have an index
    private = {state: count for state, count in session.execute(all_jobs.where(Job.viewer.is_not(None)))}
    public = {JobState(state): count - private.get(state, 0) for state, count in session.execute(all_jobs)}
    return dict.fromkeys(JobState, 0) | public


def list_running(session: Session, worker_ids: Sequence[int]) -> list[Job]:
    """The running jobs of workers, by start time."""
    statement = select(Job).where(Job.worker_id.in_(worker_ids), Job.state.in_(RUNNING))
    return list(session.scalars(statement.order_by(Job.started_at, Job.id)))
