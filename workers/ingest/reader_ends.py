"""Counting of readers that were ended by the files that they read."""

from __future__ import annotations

from catalog.auth.viewer import ADMIN
from catalog.database import Database
from catalog.errors import ReaderEnded
from catalog.jobs.repository import jobs
from catalog.quarantine import repository as quarantine
from catalog.quarantine.repository import QuarantineKey
from catalog.tables import Job


def count_reader_end(database: Database, job: Job, error: ReaderEnded, limit: int) -> None:
    """Count the end of a reader against the base whose files alone it read, or else against the repo of the job; after
    `limit` ends they are quarantined. It is counted once, although all jobs of a batch may share it.
    """
    if error.counted:
        return
    with database.transaction() as session:
        if error.base is not None:
            key = QuarantineKey.of_base(*error.base)
        else:
            key = QuarantineKey.of_repo(job.model.repo_id, jobs.get(session, job.id, ADMIN).sha)
        quarantine.count(session, key, error, limit)
    error.counted = True
