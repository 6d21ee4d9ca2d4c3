"""Jobs, and what people do to them. Each change of state is one statement that names the state it starts from, so two
can never both win. How workers take them stands in `claims`, how their attempts end in `attempts`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Select, case, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased
from sqlalchemy.orm.attributes import set_committed_value

from catalog import locks
from catalog.auth.viewer import EVERYTHING, PUBLIC, Viewer
from catalog.errors import JobNotFound, Quarantined, TokenRequired
from catalog.jobs.repository.attempts import ENDING_VALUES, QUEUED_AGAIN, with_attempt
from catalog.locks import Lock
from catalog.repository import newest_first, owned_by
from catalog.tables import ACTIVE, ACTIVE_REINDEX, RUNNING, Job, JobState, Model, Priority, Reindex, Task, TaskRun


def submit(
    session: Session,
    model: Model,
    revision: str | None,
    base_hint: str | None = None,
    *,
    priority: Priority = Priority.PERSON,
    submitter: str | None = None,
    reindex_id: int | None = None,
) -> tuple[Job, bool]:
    """The active job for that model and revision (of that reindex, or of none), made if there is none; and whether it
    was made.

    One that waits already becomes as urgent as it is asked for now. Raises `TokenRequired` for a private model: its job
    would be shown to everybody, and could not read the repo.
    """
    if model.private:
        raise TokenRequired("A private model is read with its submitter's token: submit it again, with the token.")
    statement = (
        insert(Job)
        .values(
            model_id=model.id,
            requested_revision=revision,
            base_hint=base_hint,
            priority=priority,
            submitter=submitter,
            reindex_id=reindex_id,
        )
        .on_conflict_do_nothing()
        .returning(Job)
    )
    while True:
        made = session.scalars(statement).one_or_none()
        if made is not None:
            set_committed_value(made, "model", model)
            return made, True
        # the job that stood in the way may have ended in the meantime; then the insert succeeds
        if (job := active(session, model.id, revision, reindex_id)) is not None:
            if job.state == JobState.QUEUED and job.priority > priority:
                hurried = update(Job).where(Job.id == job.id, Job.priority > priority).values(priority=priority)
                session.execute(hurried)
                return get(session, job.id, EVERYTHING), False
            return job, False


def submit_private(
    session: Session, model: Model, revision: str | None, *, viewer: str, token: bytes, base_hint: str | None = None
) -> tuple[Job, bool]:
    """The viewer's own active job for that repo and revision, made on its private `model` if there is none; and whether
    it was made. The sealed token that came last is the one that is kept.
    """
    lock_submitter(session, viewer)  # so that no two of its requests make a job each
    same = func.coalesce(Job.requested_revision, "") == (revision or "")
    named = select(Model.id).where(Model.repo_id == model.repo_id)  # its job may have moved to the public row
    mine = Job.model_id.in_(named) & (Job.viewer == viewer) & (Job.submitter == viewer) & same
    renewed = update(Job).where(mine, Job.state.in_(ACTIVE)).values(token=token, token_at=func.now())
    found = session.execute(renewed.returning(Job.id)).scalars().first()
    if found is not None:
        return get(session, found, EVERYTHING), False
    statement = insert(Job).values(
        model_id=model.id,
        requested_revision=revision,
        base_hint=base_hint,
        submitter=viewer,
        viewer=viewer,
        token=token,
        token_at=func.now(),
    )
    made = session.execute(statement.returning(Job.id)).scalar_one()
    return get(session, made, EVERYTHING), True


def submit_alone(session: Session, model: Model, base_hint: str, *, submitter: str, viewer: str | None) -> Job:
    """A job that wants a worker with nothing else in its hands."""
    values = {"model_id": model.id, "base_hint": base_hint, "submitter": submitter, "viewer": viewer, "alone": True}
    made = session.execute(insert(Job).values(**values).returning(Job.id)).scalar_one()
    return get(session, made, EVERYTHING)


def move(session: Session, job_id: int, worker_id: int, model_id: int) -> bool:
    """Have a running job be for another model from here on. False when it is not this worker's any more."""
    own = update(Job).where(Job.id == job_id, Job.worker_id == worker_id, Job.state.in_(RUNNING))
    return session.execute(own.values(model_id=model_id).returning(Job.id)).scalar_one_or_none() is not None


def active(session: Session, model_id: int, revision: str | None, reindex_id: int | None = None) -> Job | None:
    """The job of that model and revision, and of that reindex or of none, that waits or runs; of those that came
    without a token.
    """
    statement = select(Job).where(
        Job.model_id == model_id,
        func.coalesce(Job.requested_revision, "") == (revision or ""),
        func.coalesce(Job.reindex_id, 0) == (reindex_id or 0),
        Job.state.in_(ACTIVE),
        Job.token_at.is_(None),
    )
    return session.scalars(statement).one_or_none()


def get(session: Session, job_id: int, viewer: Viewer = PUBLIC) -> Job:
    """Raises `JobNotFound`."""
    job = session.get(Job, job_id, populate_existing=True)
    if job is None or not viewer.sees(job.viewer):
        raise JobNotFound(f"There is no job {job_id}.")
    return job


def page(
    session: Session,
    *,
    state: JobState | None = None,
    before: int | None = None,
    limit: int = 50,
    viewer: Viewer = PUBLIC,
) -> list[Job]:
    """Up to `limit` jobs with an id below `before`, newest first."""
    statement = select(Job).where(owned_by(Job.viewer, viewer))
    if state is not None:
        statement = statement.where(Job.state == state)
    return list(session.scalars(newest_first(statement, Job.id, before, limit)))


def latest_done(session: Session, model_id: int, sha: str) -> Job | None:
    """The newest job that ended well for that commit."""
    statement = select(Job).where(Job.model_id == model_id, Job.sha == sha, Job.state == JobState.DONE)
    return session.scalars(statement.order_by(Job.id.desc()).limit(1)).one_or_none()


def quarantined(session: Session, model_id: int, viewer: str | None = None) -> Job | None:
    """The newest job of a model that killed workers, and that no admin has let go since; of those that came with a
    token the viewer's own.
    """
    killed = (Job.state == JobState.FAILED) & (Job.error_code == Quarantined.code)
    statement = select(Job).where(killed, Job.viewer.is_not_distinct_from(viewer))
    if viewer is None:
        statement = statement.where(Job.model_id == model_id)
    else:  # its job may have moved to the public model of that name
        mine = select(Model.repo_id).where(Model.id == model_id).scalar_subquery()
        statement = statement.where(Job.model_id.in_(select(Model.id).where(Model.repo_id == mine)))
    return session.scalars(statement.order_by(Job.id.desc()).limit(1)).one_or_none()


def cancel(session: Session, job_id: int) -> bool:
    """End a job that waits or runs. From here on no worker can store anything of it. False when it was over."""
    running = Job.state.in_(RUNNING)
    values = {"state": JobState.CANCELLED, **ENDING_VALUES, "error_code": None, "error_message": None}
    history = case((running, with_attempt("cancelled")), else_=Job.history)
    statement = update(Job).where(Job.id == job_id, Job.state.in_(ACTIVE)).values(**values, history=history)
    return session.execute(statement.returning(Job.id)).scalar_one_or_none() is not None


def release_from_quarantine(session: Session, job_id: int, message: str) -> bool:
    """Let go a job that came with a token, which is gone: its submitter may submit it again. False when there is
    nothing to let go.
    """
    this = (Job.id == job_id) & Job.viewer.is_not(None) & (Job.error_code == Quarantined.code)
    values = {"error_code": TokenRequired.code, "error_message": message}
    return session.execute(update(Job).where(this).values(**values).returning(Job.id)).scalar_one_or_none() is not None


def _of_use() -> ColumnElement[bool]:
    """Whether what a job measures would still be stored, and what it needs is still here."""
    running = select(Reindex.id).where(Reindex.id == Job.reindex_id, Reindex.state.in_(ACTIVE_REINDEX))
    return (Job.reindex_id.is_(None) | running.exists()) & ~_without_examples().exists()


def _without_examples() -> Select[int]:
    """The task whose examples a job would train on, where they are forgotten."""
    run_of_job = TaskRun.model_id == Job.model_id
    return select(Task.id).join(TaskRun, TaskRun.task_id == Task.id).where(run_of_job, Task.examples.is_(None))


def task_without_examples(session: Session, job_id: int) -> int | None:
    """The task of a job that cannot be retried because its examples are forgotten."""
    return session.execute(_without_examples().where(Job.id == job_id)).scalar_one_or_none()


_AGAIN = {**QUEUED_AGAIN, "attempts": 0, "deaths": 0, "started_at": None, "finished_at": None}


def again(session: Session, job_id: int, submitter: str | None) -> bool:
    """Queue a failed or cancelled job as if it were new, its history kept. False when it is neither, came with a token,
    is of a reindex that is over, or of a task whose examples are forgotten.
    """
    over = Job.state.in_((JobState.FAILED, JobState.CANCELLED)) & Job.token_at.is_(None)
    statement = update(Job).where(Job.id == job_id, over, _of_use())
    values = {**_AGAIN, "submitter": submitter, "error_code": None, "error_message": None}
    return session.execute(statement.values(**values).returning(Job.id)).scalar_one_or_none() is not None


def again_by_code(session: Session, code: str, limit: int) -> list[int]:
    """Queue up to `limit` failed jobs with that error again, the oldest first; not those that came with a token, after
    which another job of the same model and revision came, or beside which one is active.
    """
    other = aliased(Job)
    same = (func.coalesce(other.requested_revision, "") == func.coalesce(Job.requested_revision, "")) & (
        func.coalesce(other.reindex_id, 0) == func.coalesce(Job.reindex_id, 0)
    )
    outdated = (other.id > Job.id) | other.state.in_(ACTIVE)
    newer = select(other.id).where(other.model_id == Job.model_id, same, outdated)
    failed = (
        select(Job.id)
        .where(Job.state == JobState.FAILED, Job.error_code == code, Job.token_at.is_(None), ~newer.exists(), _of_use())
        .order_by(Job.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("failed_jobs")
    )
    values = {**_AGAIN, "submitter": None, "error_code": None, "error_message": None}
    statement = update(Job).where(Job.id.in_(select(failed.c.id))).values(**values)
    return sorted(session.execute(statement.returning(Job.id)).scalars())


def count_active(session: Session, submitter: str, limit: int) -> int:
    """How many jobs of a submitter wait or run; counts no further than `limit`."""
    counted = select(Job.id).where(Job.submitter == submitter, Job.state.in_(ACTIVE)).limit(limit).subquery()
    return session.execute(select(func.count()).select_from(counted)).scalar_one()


def lock_submitter(session: Session, submitter: str) -> None:
    """Wait for the turn to count a submitter's jobs; held until the transaction ends."""
    locks.acquire(session, Lock.SUBMITTER_JOBS, submitter)


def withdraw(session: Session, model_id: int) -> list[int]:
    """End what waits or runs for a model: what a worker still makes of it is not stored any more. Returns the jobs."""
    statement = select(Job.id).where(Job.model_id == model_id, Job.state.in_(ACTIVE))
    return [job_id for job_id in session.scalars(statement).all() if cancel(session, job_id)]


def any_active(session: Session, model_id: int) -> bool:
    """Whether a job waits or runs for a model."""
    return session.execute(select(Job.id).where(Job.model_id == model_id, Job.state.in_(ACTIVE))).first() is not None


def counts(session: Session) -> dict[JobState, int]:
    """How many jobs that everybody may see are in each state."""
    every = select(Job.state, func.count()).group_by(Job.state)
    # few, by an index
    hidden = {state: count for state, count in session.execute(every.where(Job.viewer.is_not(None)))}
    counted = {JobState(state): count - hidden.get(state, 0) for state, count in session.execute(every)}
    return dict.fromkeys(JobState, 0) | counted


def running_of(session: Session, worker_ids: Sequence[int]) -> list[Job]:
    """What workers have, in the order in which they began."""
    statement = select(Job).where(Job.worker_id.in_(worker_ids), Job.state.in_(RUNNING))
    return list(session.scalars(statement.order_by(Job.started_at, Job.id)))
