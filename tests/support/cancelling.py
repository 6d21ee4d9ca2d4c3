"""Cancellation of a job while a worker runs it."""

from __future__ import annotations

from catalog.database import Database
from catalog.jobs import control as job_control
from catalog.tables import Job
from workers.ingest.job_runner import Report


def cancel_at_first_report(database: Database, job: Job, worker_id: int) -> Report:
    """A progress reporter that cancels the job at its first report."""
    return lambda progress: job_control.cancel(database, job.id)
