"""How the jobs of a worker end: with a stored vector, or with an error, after which some are tried again."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sqlalchemy.orm import Session

from catalog.blocks import repository as blocks
from catalog.database import Database
from catalog.errors import (
    CatalogError,
    DatabaseUnavailable,
    HubRateLimited,
    HubTokenInvalid,
    ModelBlocked,
    ReaderEnded,
)
from catalog.jobs.repository import attempts
from catalog.jobs.submissions import follow_up
from catalog.models.repository import models, revisions
from catalog.quarantine import repository as quarantine
from catalog.quarantine.repository import QuarantineKey
from catalog.removals.service import erase
from catalog.spaces import repository as spaces
from catalog.tables import Job
from catalog.vectors.repository import feed
from workers.bases.residents import Resident
from workers.encoding.encoder import Encoding
from workers.ingest.fetches import ClaimedJob
from workers.ingest.reader_ends import count_reader_end
from workers.ingest.storing import EncodingWriter
from workers.process.retries import RetryPolicy, as_catalog_error, failures_before, retry_while_database_down

log = logging.getLogger(__name__)


class Outcomes:
    """Stores how jobs ended, for those that the worker still has. Thread-safe."""

    def __init__(self, database: Database, worker_id: int, retries: RetryPolicy) -> None:
        self._database = database
        self._worker_id = worker_id
        self._retries = retries
        self._writer = EncodingWriter()

    def store(self, resident: Resident, encoded: Sequence[tuple[ClaimedJob, Encoding]]) -> None:
        """Store vectors and finish their jobs, in one transaction."""
        with self._database.transaction() as session:
            feed.lock_feed(session)
            spaces.store_proof(session, resident.proof)
            for claimed, encoding in encoded:
                if (blocked := self._find_block(session, claimed)) is not None:
                    self._fail(session, claimed.job, blocked)
                # nothing is stored for a job that this worker has lost
                elif attempts.finish(session, claimed.job.id, self._worker_id, claimed.fetched.sha):
                    self._writer.store(session, resident, claimed.fetched, encoding)
                    repo_id, base = claimed.job.model.repo_id, claimed.job.requested_base
                    quarantine.forget(session, QuarantineKey.of_repo(repo_id, claimed.fetched.sha, base))
                    follow_up(session, claimed.job, claimed.fetched.sha)

    def _find_block(self, session: Session, claimed: ClaimedJob) -> ModelBlocked | None:
        """The error of a model that was blocked while it was measured."""
        metadata = claimed.fetched.metadata
        return blocks.find_error(session, claimed.job.model.repo_id, metadata.license if metadata else None)

    def _fail(self, session: Session, job: Job, error: CatalogError) -> None:
        """Fail a job. What was indexed of a model before it was blocked is removed."""
        if isinstance(error, ModelBlocked):
            feed.lock_feed(session)  # before any row of the job, in the same order as when vectors are stored
        if not attempts.fail(session, job.id, self._worker_id, error):
            return
        models.mark_failed(session, [job.model_id])
        if isinstance(error, ModelBlocked):
            # the license of an old commit says nothing about the head of main
            if job.requested_revision is None and revisions.list_page(session, job.model_id, before=None, limit=1):
                erase(session, [job.model_id])
        else:
            follow_up(session, job, None)

    def store_failure(self, job: Job, cause: BaseException) -> None:
        """Store an error on its job, and queue the job again if the error is transient."""
        error, is_transient = as_catalog_error(cause)
        if isinstance(error, DatabaseUnavailable):
            log.warning("job %s waits for Postgres", job.id)  # `_release_remaining` requeues it
            return
        if isinstance(error, HubTokenInvalid):  # logged once, by the session
            retry_while_database_down(lambda: self._hold(job, error))
            return
        if isinstance(error, ReaderEnded):
            limit = self._retries.max_worker_deaths
            retry_while_database_down(lambda: count_reader_end(self._database, job, error, limit))
        is_rate_limited = isinstance(error, HubRateLimited)
        failures = failures_before(job) + 1
        retry = is_transient and (is_rate_limited or failures < self._retries.max_attempts)
        outcome = "; will retry" if retry else ""
        log.warning("job %s (%s): %s: %s%s", job.id, job.model.repo_id, error.code, error, outcome)

        def store() -> None:
            with self._database.transaction() as session:
                if retry:
                    delay = self._retries.delay(failures, error)
                    attempts.retry(session, job.id, self._worker_id, error, delay)
                else:
                    self._fail(session, job, error)

        retry_while_database_down(store)

    def _hold(self, job: Job, error: HubTokenInvalid) -> None:
        with self._database.transaction() as session:
            attempts.hold(session, job.id, self._worker_id, error, self._retries.delay(1, error))
