"""claim -> fetch -> encode -> store."""

from __future__ import annotations

import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TypeVar

from catalog.database import Database
from catalog.errors import CatalogError, DatabaseUnavailable, HubRateLimited, OutOfMemory, Unavailable
from catalog.groups import Placer
from catalog.queue import ring_after_commit
from catalog.repository import jobs, models, spaces, vectors
from catalog.submissions import follow_up
from catalog.tables import Job, JobState, ModelState
from workers.bases import Resident, ResidentBases
from workers.encoding import Encoding
from workers.fetching import SHARE, Fetched, Fetcher
from workers.resolver import ResolvedBase

EXPLAINED = "delta_activations"  # the feature whose shift the output head can read
LONGEST_DELAY = 600  # seconds
PATIENCE = 600  # seconds that a result waits for Postgres to come back

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetryPolicy:
    """`base` seconds before the first retry, doubled for each further one, with jitter; `max_attempts` in all."""

    max_attempts: int
    base: float

    def delay(self, attempts: int, error: CatalogError) -> float:
        if isinstance(error, Unavailable) and error.retry_after is not None:
            return error.retry_after + self.base * random.uniform(0, 1)  # not all at the same moment
        return min(self.base * 2 ** (attempts - 1), LONGEST_DELAY) * random.uniform(0.5, 1.5)


@dataclass(frozen=True)
class Pace:
    """How much a worker takes on: `batch` jobs at once; after `drain` seconds it looks at its other messages; a job
    waits at most `patience` seconds because others have their base in memory.
    """

    batch: int = 8
    drain: float = 60.0
    patience: float = 120.0


class Pipeline:
    """What a worker does with a doorbell. One call at a time; the next batch is fetched while one is encoded."""

    def __init__(
        self,
        database: Database,
        fetcher: Fetcher,
        bases: ResidentBases,
        worker_id: int,
        *,
        pace: Pace,
        retries: RetryPolicy,
    ) -> None:
        self._database = database
        self._fetcher = fetcher
        self._bases = bases
        self._worker_id = worker_id
        self._pace = pace
        self._retries = retries
        self._placer = Placer()

    def ingest(self, job_id: int) -> int:
        """Answer the bell of a job: bring queued jobs to their ends, batch by batch, until none is left or the time
        for it is over. Returns how many were claimed: 0 for a bell that another worker has answered.
        """
        with self._database.transaction() as session:
            jobs.release(session, self._worker_id)  # what an earlier call that died in the middle still holds
            if not jobs.is_due(session, job_id):
                return 0
        deadline, total = time.monotonic() + self._pace.drain, 0
        with ThreadPoolExecutor(1, "ahead") as ahead:
            claimed, fetched = self._take_batch()
            while claimed:
                total += len(claimed)
                late = time.monotonic() > deadline
                coming = None if late else ahead.submit(self._take_batch)
                try:
                    self._embed_all(fetched)
                finally:
                    for each in fetched:
                        each.hold.release()
                claimed, fetched = coming.result() if coming else ([], [])
        self._ring_for_the_rest()
        return total

    def _take_batch(self) -> tuple[list[Job], list[Fetched]]:
        claimed = self._claim()
        with ThreadPoolExecutor(self._pace.batch, "fetch") as pool:
            return claimed, [each for each in pool.map(self._fetch, claimed) if each is not None]

    def _claim(self) -> list[Job]:
        while True:
            with self._database.transaction() as session:
                first = jobs.next_due(session, self._bases.repos, self._pace.patience)
                if first is None:
                    return []
                if claimed := jobs.claim(session, first, self._worker_id, self._pace.batch):
                    return claimed

    def _embed_all(self, fetched: Sequence[Fetched]) -> None:
        groups: dict[tuple[str, str], list[Fetched]] = defaultdict(list)
        for each in fetched:
            groups[each.base.repo, each.base.sha].append(each)
        # stable: bases in memory first
        for group in sorted(groups.values(), key=lambda group: group[0].base not in self._bases):
            if not self._put_back(group):
                self._embed(group[0].base, group)

    def _put_back(self, group: Sequence[Fetched]) -> bool:
        """Let jobs whose base turned out to be another one wait while there is work for those in memory."""
        base, jobs_of_group = group[0].base, [each.job for each in group]
        waited = max((datetime.now(UTC) - job.available_at).total_seconds() for job in jobs_of_group)
        known = all(job.base_hint == base.repo for job in jobs_of_group)
        if base in self._bases or not self._bases.repos or known or waited > self._pace.patience:
            return False
        with self._database.transaction() as session:
            if not jobs.any_due(session, self._bases.repos):
                return False
            jobs.put_back(session, [job.id for job in jobs_of_group], self._worker_id, base.repo)
        return True

    def _ring_for_the_rest(self) -> None:
        """The bells of jobs that were passed over have been answered by this call: one more for all that is left."""
        with self._database.transaction() as session:
            if (left := jobs.next_due(session, (), 0)) is not None:
                ring_after_commit(session, left)

    def _fetch(self, job: Job) -> Fetched | None:
        try:
            return self._fetcher.fetch(job, self._worker_id)
        except Exception as error:
            self._settle(job, error)
            return None

    def _embed(self, base: ResolvedBase, group: Sequence[Fetched]) -> None:
        try:
            with self._database.transaction() as session:
                ids = [each.job.id for each in group]
                own = jobs.advance(session, ids, self._worker_id, JobState.ENCODING, SHARE)
            group = [each for each in group if each.job.id in own]
            if not group:
                return
            resident = self._bases.get(base)
            results = resident.encoder.encode([each.finetune for each in group])
        except Exception as error:
            if len(group) == 1 or isinstance(error, CatalogError):
                for each in group:
                    self._settle(each.job, error)
                return
            log.exception("a batch of %s could not be encoded; trying each alone", len(group))
            for each in group:
                self._embed(base, [each])
            return
        for each, result in zip(group, results, strict=True):
            if isinstance(result, CatalogError):
                self._settle(each.job, result)
        encoded = [(e, result) for e, result in zip(group, results, strict=True) if isinstance(result, Encoding)]
        try:
            _patiently(lambda: self._store(resident, encoded))
        except Exception as error:
            for each, _ in encoded:
                self._settle(each.job, error)

    def _store(self, resident: Resident, encoded: Sequence[tuple[Fetched, Encoding]]) -> None:
        """One transaction for the vectors and the ends of their jobs."""
        with self._database.transaction() as session:
            vectors.lock_feed(session)
            for each, encoding in encoded:
                if not jobs.finish(session, each.job.id, self._worker_id, each.sha):
                    continue  # taken from us in the meantime: whoever has it now stores its result
                revision = models.make_current(
                    session,
                    each.job.model_id,
                    each.sha,
                    kind=each.finetune.kind,
                    base_repo=each.base.repo,
                    base_sha=each.base.sha,
                    evidence=each.base.evidence,
                )
                vectors.retire(session, each.job.model_id, each.base.repo, each.base.sha)
                if each.metadata is not None:
                    models.describe(session, each.job.model_id, each.metadata)
                if each.card is not None:
                    models.set_card(session, each.job.model_id, each.card)
                moved = False
                for feature, vector in encoding.vectors.items():
                    norm = encoding.norms[feature]
                    no_shift = norm <= resident.noise_floor[feature]
                    moved = moved or not no_shift
                    space = spaces.ensure(session, resident.encoder.space(feature), vector.size)
                    told = asdict(encoding.explanation) if encoding.explanation and feature == EXPLAINED else None
                    vectors.store(session, space, revision, vector, norm=norm, no_shift=no_shift, explanation=told)
                    self._placer.place(session, space, each.job.model_id, None if no_shift else vector)
                models.set_state(session, each.job.model_id, ModelState.INDEXED if moved else ModelState.NO_SHIFT)
                follow_up(session, each.job, each.sha)

    def _settle(self, job: Job, cause: Exception) -> None:
        """Store a failure on its job: queued again when it may pass, failed when it may not."""
        error, may_pass = _as_catalog_error(cause)
        if isinstance(error, DatabaseUnavailable):
            log.warning("job %s waits for Postgres", job.id)  # still ours, so the next ingest releases it
            return
        # that the Hub is asked for too much is no fault of the job's
        retry = may_pass and (job.attempts < self._retries.max_attempts or isinstance(error, HubRateLimited))
        log.warning("job %s (%s): %s: %s%s", job.id, job.model.repo_id, error.code, error, "; again" if retry else "")

        def store() -> None:
            with self._database.transaction() as session:
                if retry:
                    delay = self._retries.delay(job.attempts, error)
                    jobs.retry(session, job.id, self._worker_id, error, delay)
                elif jobs.fail(session, job.id, self._worker_id, error):
                    models.mark_failed(session, [job.model_id])
                    follow_up(session, job, None)

        _patiently(store)


def _as_catalog_error(cause: Exception) -> tuple[CatalogError, bool]:
    """The error to show, and whether the same job may pass when it is tried again."""
    if isinstance(cause, CatalogError):
        return cause, cause.transient
    if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
        return OutOfMemory("The model did not fit into this worker's memory."), True
    log.error("an ingest failed in a way that has no name", exc_info=cause)
    return CatalogError(f"The worker failed: {type(cause).__name__}. Its log says more."), True


def _patiently(action: Callable[[], T]) -> T:
    """Try again while Postgres is away: a computed result is worth waiting for."""
    deadline, pause = time.monotonic() + PATIENCE, 0.5
    while True:
        try:
            return action()
        except DatabaseUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(pause)
            pause = min(2 * pause, 10)
