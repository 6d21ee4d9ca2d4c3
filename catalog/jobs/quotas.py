"""Limits on the number of active jobs of each submitter."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from catalog.auth.viewer import hash_key
from catalog.errors import TooManyJobs
from catalog.jobs.repository import jobs

ANONYMOUS = "anonymous"
RETRY_AFTER = 30.0  # seconds
MAX_UNCOMMITTED = 100  # concurrent submissions that have counted the jobs but not committed yet


@dataclass(frozen=True)
class Quota:
    """A submitter (the hash of its API key), and the maximum number of its active jobs."""

    submitter: str
    limit: int

    @classmethod
    def from_key(cls, key: str | None, limit: int) -> Quota:
        """The quota of a key. All submitters without a key share one quota."""
        return cls(hash_key(key) if key else ANONYMOUS, limit)

    def check(self, session: Session) -> None:
        """Raise `TooManyJobs`, which rolls the transaction back, if the job that was just created exceeds the limit.

        Near the limit, submissions of one submitter are serialized, so that concurrent requests cannot exceed it
        together.
        """
        if jobs.count_active(session, self.submitter, self.limit + 1) + MAX_UNCOMMITTED <= self.limit:
            return
        jobs.lock_submitter(session, self.submitter)
        if jobs.count_active(session, self.submitter, self.limit + 1) > self.limit:
            whose = "Submitters without an API key have" if self.submitter == ANONYMOUS else "This API key has"
            raise TooManyJobs(f"{whose} {self.limit:,} active jobs, the limit. Wait until some finish.", RETRY_AFTER)
