"""Jobs, their events, queues and workers: listing and reading them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.jobs.repository import events, jobs, queues, workers
from catalog.jobs.repository.events import Event, EventCursor
from catalog.jobs.repository.queues import QueueReport
from catalog.models.repository import models
from catalog.spaces import repository as spaces
from catalog.tables import Job, JobState, ModelState, Worker

__all__ = [
    "Event",
    "EventCursor",
    "EventSubscription",
    "QueueReport",
    "Stats",
    "get",
    "get_stats",
    "list_events",
    "list_page",
    "list_queues",
    "list_workers",
    "newest_cursor",
    "subscribe",
    "subscribe_to_job",
]  # fmt: skip


@dataclass(frozen=True)
class Stats:
    """Models and jobs by state, bases by the path on which they run, and the workers that are alive."""

    models: dict[ModelState, int]
    jobs: dict[JobState, int]
    bases: dict[str, int]
    workers: list[Worker]


@dataclass(frozen=True)
class EventSubscription:
    """The start of a stream of events: the stream continues after the cursor `after`; `now` is the newest cursor at the
    time of the subscription.
    """

    after: EventCursor
    now: EventCursor
    complete: bool  # no event between `after` and `now` has been deleted
    resumed: bool  # whether the client gave a cursor
    job: Job | None = None


def get(database: Database, job_id: int, viewer: Viewer = PUBLIC) -> Job:
    """Return a job that the viewer may see. Raises `JobNotFound`."""
    with database.transaction() as session:
        return jobs.get(session, job_id, viewer)


def list_page(
    database: Database, *, state: JobState | None, before: int | None, limit: int, viewer: Viewer = PUBLIC
) -> list[Job]:
    """Up to `limit` jobs with an id below `before`, newest first."""
    with database.transaction() as session:
        return jobs.list_page(session, state=state, before=before, limit=limit, viewer=viewer)


def get_stats(database: Database, heartbeat_timeout: float) -> Stats:
    """Count models, jobs and bases, and list the workers with a heartbeat in the last `heartbeat_timeout` seconds."""
    with database.transaction() as session:
        alive = workers.list_alive(session, heartbeat_timeout)
        bases = spaces.count_proofs_by_path(session)
        return Stats(models.count_by_state(session), jobs.count_by_state(session), bases, alive)


def list_queues(database: Database) -> list[QueueReport]:
    """Report the state of all queues."""
    with database.transaction() as session:
        return queues.list_reports(session)


def list_workers(database: Database, heartbeat_timeout: float) -> tuple[list[Worker], list[Job]]:
    """The workers with a heartbeat in the last `heartbeat_timeout` seconds, and the jobs that they run."""
    with database.transaction() as session:
        alive = workers.list_alive(session, heartbeat_timeout)
        return alive, jobs.list_running(session, [worker.id for worker in alive])


def subscribe(database: Database, after: EventCursor | None) -> EventSubscription:
    """Subscribe to the events of all jobs, after the given cursor or else from now on."""
    with database.transaction() as session:
        now = events.newest_cursor(session)
        start = min(after or now, now)
        complete = after is None or events.is_complete_after(session, start)
        return EventSubscription(start, now, complete, resumed=after is not None)


def subscribe_to_job(
    database: Database, job_id: int, after: EventCursor | None, viewer: Viewer = PUBLIC
) -> EventSubscription:
    """Subscribe to the events of one job. Raises `JobNotFound`."""
    subscription = subscribe(database, after)
    # in a later transaction: a change between the two is reported twice rather than missed
    return replace(subscription, job=get(database, job_id, viewer))


def list_events(database: Database, after: EventCursor, *, job_id: int | None = None, limit: int) -> list[Event]:
    """Up to `limit` events after a cursor, in order, of all jobs or of one."""
    with database.transaction() as session:
        return events.list_page(session, after, job_id=job_id, limit=limit)


def newest_cursor(database: Database) -> EventCursor:
    """The cursor after every event that can be read now."""
    with database.transaction() as session:
        return events.newest_cursor(session)
