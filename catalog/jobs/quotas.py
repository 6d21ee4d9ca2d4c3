"""How many jobs of one submitter may be active at once."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from catalog.auth.viewer import hash_of_key
from catalog.errors import TooManyJobs
from catalog.jobs.repository import jobs

ANONYMOUS = "anonymous"
RETRY_AFTER = 30.0  # seconds
AT_ONCE = 100  # submissions that may be between their count and their commit


@dataclass(frozen=True)
class Quota:
    """A submitter by the hash of its key, and how many of its jobs may wait or run at once."""

    submitter: str
    limit: int

    @classmethod
    def of_key(cls, key: str | None, limit: int) -> Quota:
        """Those without a key share one quota."""
        return cls(hash_of_key(key) if key else ANONYMOUS, limit)

    def check(self, session: Session) -> None:
        """Raises `TooManyJobs` when the job that was just made is one too many; its transaction is then rolled back.

        Near the limit submitters take turns, so that requests at once do not pass it together.
        """
        if jobs.count_active(session, self.submitter, self.limit + 1) + AT_ONCE <= self.limit:
            return
        jobs.lock_submitter(session, self.submitter)
        if jobs.count_active(session, self.submitter, self.limit + 1) > self.limit:
            whose = "Submitters without an API key have" if self.submitter == ANONYMOUS else "This API key has"
            raise TooManyJobs(f"{whose} {self.limit:,} active jobs, the limit. Wait until some are over.", RETRY_AFTER)
