"""claim -> fetch -> encode -> store."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from catalog.database import Database
from catalog.errors import CatalogError, DatabaseUnavailable, HubRateLimited
from catalog.jobs.repository import attempts, claims, recovery
from catalog.jobs.submissions import follow_up
from catalog.models.repository import models
from catalog.queue import ring_after_commit
from catalog.tables import Job, JobState, Source
from catalog.vectors.repository import feed
from workers.bases.residents import Resident, ResidentBases
from workers.bases.resolver import ResolvedBase
from workers.encoding.encoder import Encoding
from workers.finetunes.reading import FineTune
from workers.ingest.claimer import Claimer, Pace
from workers.ingest.exclusive import JobRunner
from workers.ingest.fetcher import SHARE, Fetched, Fetcher
from workers.ingest.storing import Shelf
from workers.process.cancellation import Stopped, heeding
from workers.process.claim_monitor import Claim, Watch
from workers.process.retries import RetryPolicy, as_catalog_error, failures_before, patiently

IDLE = "waiting for a job"
TICK = 0.2  # seconds between looks whether a download's job is lost
ENDS_PROCESS = (KeyboardInterrupt, SystemExit)  # what asks the process to end says nothing about a job

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InHand:
    """A fetched job, and this worker's claim to it."""

    claim: Claim
    fetched: Fetched

    @property
    def job(self) -> Job:
        return self.fetched.job

    @property
    def base(self) -> ResolvedBase:
        return self.fetched.base

    @property
    def finetune(self) -> FineTune:
        return self.fetched.finetune


@dataclass(frozen=True)
class Batch:
    """What was claimed at once, and of it what is to be encoded. One `alone` is the only one; with `exclusive`, it is
    run by the runner of its source.
    """

    claimed: int
    alone: bool
    fetched: list[InHand]
    exclusive: tuple[JobRunner, Job, Claim] | None = None


NOTHING = Batch(0, False, [])


class Pipeline:
    """What a worker does with a doorbell. One call at a time; the next batch is fetched while one is encoded.

    A job of a source that is among the `runners` is run by its runner, alone; all others are fetched and encoded.
    """

    def __init__(
        self,
        database: Database,
        fetcher: Fetcher,
        bases: ResidentBases,
        worker_id: int,
        *,
        runners: Mapping[Source, JobRunner],
        pace: Pace,
        retries: RetryPolicy,
    ) -> None:
        self._runners = runners
        self._database = database
        self._fetcher = fetcher
        self._bases = bases
        self._worker_id = worker_id
        self._pace = pace
        self._retries = retries
        self._shelf = Shelf()
        self._watch = Watch(database, worker_id)
        self._stopping = False
        self._claimer = Claimer(database, bases, worker_id, pace, lambda: self._stopping)
        self.activity = IDLE  # what it does now, for people

    @property
    def resident(self) -> list[dict[str, object]]:
        """The bases in memory, with their bytes."""
        return [{"repo_id": repo, "bytes": size} for repo, size in self._bases.sizes.items()]

    def ingest(self, job_id: int) -> int:
        """Answer the bell of a job: bring queued jobs to their ends, batch by batch, until none is left or the time
        for it is over. Returns how many were claimed: 0 for a bell that another worker has answered.
        """
        with self._database.transaction() as session:
            self._count_deaths(session)  # an earlier call was cut off before it settled them
            if self._stopping or not claims.is_due(session, job_id):
                return 0
        blameless = False
        try:
            total = self._work_through()
            blameless = True
            return total
        except DatabaseUnavailable:
            blameless = True
            raise
        finally:  # without Postgres there is nothing else to do than to wait for it
            patiently(lambda: self._hand_on(blameless=blameless or self._stopping), math.inf)

    def stop(self) -> None:
        """Have `ingest` give up what is in hand between two steps, queue it again and return. From any thread."""
        self._stopping = True
        self._watch.give_up()

    def _work_through(self) -> int:
        deadline, total = time.monotonic() + self._pace.drain, 0
        with ThreadPoolExecutor(1, "ahead") as ahead, self._watch:
            try:
                batch = self._take_batch(alone=True)
                while batch.claimed:
                    total += batch.claimed
                    late = self._stopping or time.monotonic() > deadline
                    coming = None if late or batch.alone else ahead.submit(self._take_batch, alone=False)
                    try:
                        self._embed_all(batch.fetched)
                        if batch.exclusive:
                            self._run_alone(*batch.exclusive)
                    finally:
                        for each in batch.fetched:
                            each.fetched.hold.release()
                    batch = coming.result() if coming else NOTHING
                    if not batch.claimed and not late:  # perhaps one is next that wants to be alone
                        batch = self._take_batch(alone=True)
            finally:
                self.activity = IDLE
        return total

    def _take_batch(self, *, alone: bool) -> Batch:
        claimed = self._claimer.claim(alone=alone)
        self.activity = f"fetching {len(claimed)}" if alone and claimed else self.activity
        taken = [self._watch.take(job.id) for job in claimed]
        if claimed and (runner := self._runners.get(Source(claimed[0].model.source))):
            return Batch(1, True, [], (runner, claimed[0], taken[0]))
        suspect = any(job.deaths for job in claimed)
        return Batch(len(claimed), suspect, self._fetch_all(claimed, taken))

    def _fetch_all(self, claimed: Sequence[Job], taken: Sequence[Claim]) -> list[InHand]:
        pool = ThreadPoolExecutor(self._pace.batch, "fetch")
        futures = [pool.submit(self._fetch, job, claim) for job, claim in zip(claimed, taken, strict=True)]
        pool.shutdown(wait=False)  # a lost job's download ends by itself; nobody waits for it
        found = [_unless_lost(future, claim) for future, claim in zip(futures, taken, strict=True)]
        return [each for each in found if each is not None]

    def _embed_all(self, fetched: Sequence[InHand]) -> None:
        groups: dict[tuple[str, str], list[InHand]] = defaultdict(list)
        for each in fetched:
            groups[each.base.repo, each.base.sha].append(each)
        # stable: bases in memory first
        for group in sorted(groups.values(), key=lambda group: group[0].base not in self._bases):
            if not self._put_back(group):
                for piece in _pieces(group):
                    self._embed(group[0].base, piece)

    def _put_back(self, group: Sequence[InHand]) -> bool:
        """Let jobs whose base turned out to be another one wait while there is work for those in memory."""
        base, jobs_of_group = group[0].base, [each.job for each in group]
        waited = max((datetime.now(UTC) - job.available_at).total_seconds() for job in jobs_of_group)
        known = all(job.base_hint == base.repo for job in jobs_of_group)
        if base in self._bases or not self._bases.repos or known or waited > self._pace.patience:
            return False
        with self._database.transaction() as session:
            if not claims.any_due(session, self._bases.repos, min(job.priority for job in jobs_of_group)):
                return False
            claims.put_back(session, [job.id for job in jobs_of_group], self._worker_id, base.repo)
        return True

    def _hand_on(self, *, blameless: bool) -> None:
        """What could not be settled is queued again: this worker may get no other bell. Unless Postgres was away or
        the worker stops, any of it may be to blame for the error that ended the call, as for a worker's death. The
        bells of jobs that were passed over have been answered by this call: one more for all that is left.
        """
        with self._database.transaction() as session:
            if blameless:
                attempts.release(session, [self._worker_id])
            else:
                self._count_deaths(session)
            if (left := claims.oldest_due(session)) is not None:
                ring_after_commit(session, left)

    def _count_deaths(self, session: Session) -> None:
        recovery.count_deaths(session, [self._worker_id], self._retries.deadly)

    def _fetch(self, job: Job, claim: Claim) -> InHand | None:
        try:
            with heeding(lambda: claim.lost):
                fetched = self._fetcher.fetch(job, self._worker_id, stop=lambda: claim.lost)
            return InHand(claim, fetched) if fetched else None
        except BaseException as error:  # native code throws what is no `Exception`; no signal interrupts this thread
            if not claim.lost:  # this worker may have it again by now: then another thread's word counts
                self._settle(job, error)
            return None

    def _embed(self, base: ResolvedBase, group: Sequence[InHand]) -> None:
        if self._stopping:
            return
        self.activity = f"encoding {len(group)} on {base.repo}"
        try:
            with self._database.transaction() as session:
                ids = [each.job.id for each in group]
                own = attempts.advance(session, ids, self._worker_id, JobState.ENCODING, SHARE)
            group = [each for each in group if each.job.id in own]
            if not group:
                return
            resident = self._bases.get(base)
            with heeding(lambda: all(each.claim.lost for each in group)):
                results = resident.encoder.encode([each.finetune for each in group])
        except Stopped:
            return
        except ENDS_PROCESS:
            raise
        except BaseException as error:
            self._embed_each(base, group, error)
            return
        for each, result in zip(group, results, strict=True):
            if isinstance(result, CatalogError):
                self._settle(each.job, result)
        encoded = [(e, result) for e, result in zip(group, results, strict=True) if isinstance(result, Encoding)]
        self.activity = f"storing {len(encoded)} of {base.repo}"
        try:
            patiently(lambda: self._store(resident, encoded))
        except Exception as error:
            for each, _ in encoded:
                self._settle(each.job, error)

    def _run_alone(self, runner: JobRunner, job: Job, claim: Claim) -> None:
        self.activity = f"{runner.title} on {job.base_hint}"
        try:
            with heeding(lambda: claim.lost):
                runner.run(job)
        except Stopped:
            return
        except ENDS_PROCESS:
            raise
        except BaseException as error:
            if not claim.lost:
                self._settle(job, error)

    def _embed_each(self, base: ResolvedBase, group: Sequence[InHand], error: BaseException) -> None:
        """After a failure that may be one's alone, or that is everyone's."""
        if len(group) == 1 or isinstance(error, CatalogError):
            for each in group:
                self._settle(each.job, error)
            return
        log.error("a batch of %s could not be encoded; trying each alone", len(group), exc_info=error)
        for each in group:
            self._embed(base, [each])

    def _store(self, resident: Resident, encoded: Sequence[tuple[InHand, Encoding]]) -> None:
        """One transaction for the vectors and the ends of their jobs."""
        with self._database.transaction() as session:
            feed.lock_feed(session)
            for hand, encoding in encoded:
                # taken from us in the meantime: nothing of it is stored here
                if attempts.finish(session, hand.job.id, self._worker_id, hand.fetched.sha):
                    self._shelf.put(session, resident, hand.fetched, encoding)
                    follow_up(session, hand.job, hand.fetched.sha)

    def _settle(self, job: Job, cause: BaseException) -> None:
        """Store a failure on its job: queued again when it may pass, failed when it may not."""
        error, may_pass = as_catalog_error(cause)
        if isinstance(error, DatabaseUnavailable):
            log.warning("job %s waits for Postgres", job.id)  # still ours, and handed on at the end
            return
        slower = isinstance(error, HubRateLimited)
        failures = failures_before(job) + 1
        retry = may_pass and (slower or failures < self._retries.max_attempts)
        log.warning("job %s (%s): %s: %s%s", job.id, job.model.repo_id, error.code, error, "; again" if retry else "")

        def store() -> None:
            with self._database.transaction() as session:
                if retry:
                    delay = self._retries.delay(failures, error)
                    attempts.retry(session, job.id, self._worker_id, error, delay)
                elif attempts.fail(session, job.id, self._worker_id, error):
                    models.mark_failed(session, [job.model_id])
                    follow_up(session, job, None)

        patiently(store)


def _pieces(group: Sequence[InHand]) -> list[list[InHand]]:
    """What is encoded at once: plain LoRA together, everything else alone, as it runs: so each can be given up."""
    together = [each for each in group if each.finetune.path == "lora"]
    alone = [[each] for each in group if each.finetune.path != "lora"]
    return [together, *alone] if together else alone


def _unless_lost(future: Future[InHand | None], claim: Claim) -> InHand | None:
    while not claim.lost:
        try:
            return future.result(TICK)
        except FutureTimeout:
            continue
    future.add_done_callback(_let_go)
    return None


def _let_go(future: Future[InHand | None]) -> None:
    """Files of a job that is nobody's here may be evicted."""
    if (hand := future.result()) is not None:
        hand.fetched.hold.release()
