"""Limits on the number of active jobs of each submitter."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from catalog.errors import TooManyJobs
from catalog.jobs.repository import jobs

RETRY_AFTER = 30.0  # seconds
MAX_UNCOMMITTED = 100  # concurrent submissions that have counted the jobs but not committed yet


@dataclass(frozen=True)
class Quota:
    """A submitter (the hash of its API key), and the maximum number of its active jobs."""

    submitter: str
    limit: int

    def check(self, session: Session) -> None:
        """Raise `TooManyJobs`, which rolls the transaction back, if the job that was just created exceeds the limit.

        Near the limit, submissions of one submitter are serialized, so that concurrent requests cannot exceed it
        together.
        """
        if jobs.count_active(session, self.submitter, self.limit + 1) + MAX_UNCOMMITTED <= self.limit:
            return
        jobs.lock_submitter(session, self.submitter)
        if jobs.count_active(session, self.submitter, self.limit + 1) > self.limit:
            raise TooManyJobs(
                f"This API key has {self.limit:,} active jobs, its limit. Wait until some finish.", RETRY_AFTER
            )
