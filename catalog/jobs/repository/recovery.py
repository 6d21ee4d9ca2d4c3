"""Recovery: jobs of dead workers, queued jobs whose notification was lost, and expired tokens."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.orm import Session

from catalog.database import ErrorRecord, seconds
from catalog.errors import CatalogError, Quarantined, WorkerLost
from catalog.jobs.repository import attempts, workers
from catalog.models.repository import models
from catalog.quarantine import repository as quarantine
from catalog.quarantine.repository import QuarantineKey
from catalog.tables import RUNNING, Job, JobState, Worker

WORKER_DEATH = WorkerLost("The worker died while it ran the job.")
LOADING_DEATH = WorkerLost("The worker died while it loaded the base.")


@dataclass(frozen=True)
class RecoveredJobs:
    """The jobs of dead workers, by id: the requeued ones and the quarantined ones."""

    released: list[int]
    quarantined: list[int]


def recover(session: Session, heartbeat_timeout: float, max_worker_deaths: int) -> RecoveredJobs:
    """Requeue the jobs of workers that stopped, whose process on this machine has ended, or whose last heartbeat is
    older than `heartbeat_timeout` seconds. The latter two count as deaths (`count_deaths`).
    """
    ended = workers.list_ended(session)
    timed_out = list(session.scalars(_workers_with_jobs(Worker.heartbeat_at < func.now() - seconds(heartbeat_timeout))))
    recovered = count_deaths(session, [*ended, *timed_out], max_worker_deaths)
    workers.mark_stopped(session, *ended)
    stopped = list(session.scalars(_workers_with_jobs(Worker.stopped_at.is_not(None))))
    released = recovered.released + attempts.release(session, stopped)
    return RecoveredJobs(released, recovered.quarantined)


def count_deaths(
    session: Session,
    worker_ids: Sequence[int],
    max_worker_deaths: int,
    job_ids: Collection[int] | None = None,
    *,
    blame_loading: bool = True,
) -> RecoveredJobs:
    """Requeue the jobs of workers that died, or that ended with an error that cannot be attributed to one job. With
    `job_ids`, only these of them: the others had no part in it.

    Each job becomes a suspect and runs exclusively from then on. A job that was with `max_worker_deaths` dead workers,
    and ran exclusively on the last of them, fails, and its repo is quarantined. The death of a worker while it loaded
    a base counts against that base instead, unless it is known that loading had no part in it (`blame_loading`).
    """
    loading = workers.stop_loading(session, worker_ids) if blame_loading else []
    for death in loading:
        key = QuarantineKey.of_base(death.base_repo, death.base_sha)
        quarantine.count(session, key, LOADING_DEATH, max_worker_deaths, alone=death.alone)
    innocent = [death.worker_id for death in loading if death.alone]  # with one job each, which ran none of its files
    released = attempts.release_after_death(session, innocent, job_ids, deaths=0)
    others = [worker_id for worker_id in worker_ids if worker_id not in innocent]
    error = Quarantined(
        f"{max_worker_deaths} workers died while they ran this job, and the last of them ran nothing else; see its "
        "history. Submit a new commit, or ask an admin to retry the job."
    )
    quarantined = attempts.quarantine(session, others, max_worker_deaths, error, job_ids)
    for job in quarantined:
        quarantine.count(session, QuarantineKey.of_job(job), WORKER_DEATH, max_worker_deaths, ends=job.worker_deaths)
    models.mark_failed(session, [job.model_id for job in quarantined])
    released += attempts.release_after_death(session, others, job_ids)
    return RecoveredJobs(released, [job.id for job in quarantined])


def delete_expired_tokens(session: Session, max_age: float, error: CatalogError) -> list[int]:
    """Delete users' Hub tokens that are older than `max_age` seconds, and fail their jobs. Returns the jobs' ids."""
    expired = update(Job).where(Job.token.is_not(None), Job.token_at < func.now() - seconds(max_age))
    failed = expired.values(state=JobState.FAILED, **attempts.ENDING_VALUES, **ErrorRecord.from_error(error).columns())
    rows = session.execute(failed.returning(Job.id, Job.model_id)).all()
    models.mark_failed(session, [model_id for _, model_id in rows])
    return [job_id for job_id, _ in rows]


def start_redelivery(session: Session, redeliver_after: float, limit: int) -> list[int]:
    """Due jobs whose last notification is older than `redeliver_after` seconds or was sent before they became due, the
    oldest first, at most `limit`. Sets `enqueued_at` to now: the caller sends the notifications.
    """
    lost = (Job.enqueued_at < func.now() - seconds(redeliver_after)) | (Job.enqueued_at < Job.available_at)
    stale = (
        select(Job.id)
        .where(Job.state == JobState.QUEUED, Job.available_at <= func.now(), lost)
        .order_by(Job.available_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("stale")  # evaluated once; a subquery with a limit may be run again for every row
    )
    statement = update(Job).where(Job.id.in_(select(stale.c.id))).values(enqueued_at=func.now()).returning(Job.id)
    return list(session.execute(statement).scalars())


def _workers_with_jobs(condition: ColumnElement[bool]) -> Select[int]:
    """Ids of the workers that meet the condition and have running jobs."""
    return select(Worker.id).join(Job, Job.worker_id == Worker.id).where(Job.state.in_(RUNNING), condition).distinct()
