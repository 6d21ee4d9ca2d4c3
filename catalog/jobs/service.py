"""Jobs, queues and workers, as they are shown to people."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.jobs.repository import events, jobs, queues, workers
from catalog.jobs.repository.events import Event, Place
from catalog.jobs.repository.queues import QueueReport
from catalog.models.repository import models
from catalog.tables import Job, JobState, ModelState, Worker

__all__ = [
    "Event", "Following", "Place", "QueueReport", "Stats", "events_after", "follow", "follow_job", "get",
    "newest_place", "page", "queue_reports", "stats", "workers_alive",
]  # fmt: skip


@dataclass(frozen=True)
class Stats:
    """Models and jobs by state, and the workers that are alive."""

    models: dict[ModelState, int]
    jobs: dict[JobState, int]
    workers: list[Worker]


@dataclass(frozen=True)
class Following:
    """Where a stream of events begins. `now` is behind everything that could be read when it did."""

    after: Place
    now: Place
    whole: bool  # nothing between `after` and now was forgotten
    resumed: bool
    job: Job | None = None


def get(database: Database, job_id: int, viewer: Viewer = PUBLIC) -> Job:
    """Raises `JobNotFound`."""
    with database.transaction() as session:
        return jobs.get(session, job_id, viewer)


def page(
    database: Database, *, state: JobState | None, before: int | None, limit: int, viewer: Viewer = PUBLIC
) -> list[Job]:
    """Up to `limit` jobs with an id below `before`, the newest first."""
    with database.transaction() as session:
        return jobs.page(session, state=state, before=before, limit=limit, viewer=viewer)


def stats(database: Database, heartbeat_limit: float) -> Stats:
    """Counts, and the workers whose last heartbeat is at most `heartbeat_limit` seconds old."""
    with database.transaction() as session:
        alive = workers.alive(session, heartbeat_limit)
        return Stats(models.counts(session), jobs.counts(session), alive)


def queue_reports(database: Database) -> list[QueueReport]:
    with database.transaction() as session:
        return queues.report(session)


def workers_alive(database: Database, heartbeat_limit: float) -> tuple[list[Worker], list[Job]]:
    """The workers whose last heartbeat is at most `heartbeat_limit` seconds old, and the jobs that they have."""
    with database.transaction() as session:
        alive = workers.alive(session, heartbeat_limit)
        return alive, jobs.running_of(session, [worker.id for worker in alive])


def follow(database: Database, after: Place | None) -> Following:
    """Begin to follow the events of all jobs, behind a place or else from now on."""
    with database.transaction() as session:
        now = events.head(session)
        begin = min(after or now, now)
        return Following(begin, now, after is None or events.all_kept(session, begin), after is not None)


def follow_job(database: Database, job_id: int, after: Place | None, viewer: Viewer = PUBLIC) -> Following:
    """Begin to follow the events of one job. Raises `JobNotFound`."""
    begun = follow(database, after)
    # in a later transaction: what the job becomes between the two is read twice rather than missed
    return Following(begun.after, begun.now, begun.whole, begun.resumed, get(database, job_id, viewer))


def events_after(database: Database, after: Place, *, job_id: int | None = None, limit: int) -> list[Event]:
    """Up to `limit` events behind a place, in order; of one job alone where that is asked for."""
    with database.transaction() as session:
        return events.page(session, after, job_id=job_id, limit=limit)


def newest_place(database: Database) -> Place:
    """The place behind everything that can be read now."""
    with database.transaction() as session:
        return events.head(session)
