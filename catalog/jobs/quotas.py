"""Limits on what each submitter has: active jobs, the results of jobs, and archives."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from catalog.archives import repository as archives
from catalog.archives.limits import NO_LIMITS, ArchiveLimits
from catalog.auth.repository import owned_rows
from catalog.errors import TooManyJobs, TooManyResults
from catalog.jobs.repository import jobs

RETRY_AFTER = 30.0  # seconds
MIN_EXCLUSIVE = 20  # exclusive jobs that a submitter may have, if its limit is not lower
MAX_UNCOMMITTED = 100  # concurrent submissions that have counted the jobs but not committed yet


@dataclass(frozen=True)
class Quota:
    """A submitter (the hash of its API key), and the maximum number of its active jobs, and of its tasks, merges and
    selections together (None: any number). `archives` limits the bytes of the adapters that it keeps.
    """

    submitter: str
    limit: int
    max_results: int | None = None
    archives: ArchiveLimits = NO_LIMITS

    def check_exclusive(self, session: Session) -> None:
        """`check`, and raise `TooManyJobs` for more exclusive jobs than a hundredth of the limit, or `MIN_EXCLUSIVE`:
        each has a worker for itself, for minutes.
        """
        self.check(session)
        most = min(self.limit, max(MIN_EXCLUSIVE, self.limit // 100))
        jobs.lock_submitter(session, self.submitter)
        if jobs.count_active(session, self.submitter, most + 1, exclusive=True) > most:
            raise TooManyJobs(
                f"This API key has {most:,} active tasks, selections and merges, its limit. Wait until some finish.",
                RETRY_AFTER,
            )

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

    def check_results(self, session: Session) -> None:
        """Raise `TooManyResults`, which rolls the transaction back, if the task, merge or selection that was just
        created exceeds the limit. Requests of the same moment do not see each other's.
        """
        if self.max_results is not None and owned_rows.count(session, self.submitter) > self.max_results:
            raise TooManyResults(
                f"This API key has {self.max_results:,} tasks, merges and selections, its limit "
                "(DELTADEX_MAX_RESULTS). Delete some that are not needed."
            )

    def check_archives(self, session: Session) -> None:
        """Raise `ArchiveQuotaExceeded` if the submitter may not store another archive."""
        archives.check(session, self.archives, self.submitter)
