"""Jobs that are cancelled while a worker has them in hand."""

from __future__ import annotations

from catalog.database import Database
from catalog.jobs import control as job_control
from catalog.tables import Job
from workers.ingest.exclusive import Report


def cancel_at_first_report(database: Database, job: Job, worker_id: int) -> Report:
    """A reporter whose job is cancelled as soon as it has made some progress."""
    return lambda progress: job_control.cancel(database, job.id)
