"""The ingest of a worker: claim -> fetch -> encode -> store, batch by batch."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from catalog.database import Database
from catalog.errors import CatalogError, DatabaseUnavailable, DeadlineExceeded
from catalog.jobs.repository import attempts, claims, recovery
from catalog.queue import enqueue_after_commit
from catalog.tables import Job, JobState, Source
from workers.bases.residents import Resident, ResidentBases
from workers.bases.resolver import ResolvedBase
from workers.encoding.encoder import Encoding
from workers.ingest.claimer import BatchPolicy, Claimer
from workers.ingest.fetcher import FETCH_SHARE, Fetcher
from workers.ingest.fetches import ClaimedJob, Fetches
from workers.ingest.job_runner import JobRunner
from workers.ingest.outcomes import Outcomes
from workers.process.cancellation import Cancelled, cancel_scope, is_cancelled
from workers.process.claim_monitor import Claim, ClaimMonitor
from workers.process.memory import clear_frames, release_unused
from workers.process.retries import RetryPolicy, retry_while_database_down
from workers.process.stages import Stage, Stages

IDLE = "waiting for a job"
ENDS_PROCESS = (KeyboardInterrupt, SystemExit)  # these end the process and say nothing about a job

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExclusiveRun:
    """A job, and the runner of its source that will run it."""

    runner: JobRunner
    job: Job
    claim: Claim


@dataclass(frozen=True)
class Batch:
    """What a worker does next: `size` jobs were claimed, and `fetched` are to be encoded, which may be of an earlier
    claim. Nothing else runs during an `exclusive` batch, which has a single job; if the source of the job has a runner,
    `run` is set.
    """

    size: int
    exclusive: bool
    fetched: list[ClaimedJob]
    run: ExclusiveRun | None = None

    @property
    def is_empty(self) -> bool:
        return not self.size and not self.fetched

    def release(self) -> None:
        for claimed in self.fetched:
            claimed.fetched.locks.release()


EMPTY_BATCH = Batch(0, False, [])


class Pipeline:
    """Runs a worker's jobs. The next batch is fetched while the current one is encoded. Not thread-safe, except `stop`.

    A batch does not wait for jobs whose download is slow: they are encoded with a later one. A job whose source is
    among the `runners` is run exclusively by its runner; all other jobs are fetched and encoded.
    """

    def __init__(
        self,
        database: Database,
        fetcher: Fetcher,
        bases: ResidentBases,
        worker_id: int,
        *,
        runners: Mapping[Source, JobRunner],
        batching: BatchPolicy,
        retries: RetryPolicy,
        stages: Stages | None = None,
    ) -> None:
        self._runners = runners
        self._database = database
        self._fetcher = fetcher
        self._bases = bases
        self._worker_id = worker_id
        self._batching = batching
        self._retries = retries
        self._stages = stages or Stages()
        self._outcomes = Outcomes(database, worker_id, retries)
        self._claim_monitor = ClaimMonitor(database, worker_id)
        self._stopping = False
        self._claimer = Claimer(database, bases, worker_id, batching, lambda: self._stopping)
        self._fetches = Fetches(self._fetch, batching.size)
        self.activity = IDLE  # what the worker does now, sent with its heartbeat

    @property
    def resident(self) -> list[dict[str, object]]:
        """The bases in memory, with their sizes in bytes."""
        return [{"repo_id": repo, "bytes": size} for repo, size in self._bases.sizes.items()]

    def ingest(self, job_id: int) -> int:
        """Handle the notification of a job: run due jobs, batch by batch, until none is left or `max_duration` seconds
        have passed, or `max_overtime` more if downloads are running. Returns how many jobs were claimed; 0 if another
        worker has already claimed the job.
        """
        with self._database.transaction() as session:
            self._count_deaths(session)  # of jobs that an interrupted earlier call has left behind
            if self._stopping or not claims.is_due(session, job_id):
                return 0
        failed = True
        try:
            total = self._run_batches()
            failed = False
            return total
        except DatabaseUnavailable:
            failed = False
            raise
        finally:  # without Postgres a worker can only wait
            retry_while_database_down(
                lambda: self._release_remaining(count_deaths=failed and not self._stopping), math.inf
            )

    def stop(self) -> None:
        """Make `ingest` stop between two steps, requeue its jobs and return. Thread-safe."""
        self._stopping = True
        self._claim_monitor.lose_all()

    def _run_batches(self) -> int:
        """Run batches until none is due or the time is up. Returns how many jobs were claimed."""
        started, total = time.monotonic(), 0
        with self._fetches, ThreadPoolExecutor(1, "prefetch") as prefetcher, self._claim_monitor:
            try:
                batch = self._claim_batch(allow_exclusive=True)
                while not batch.is_empty or self._fetches.pending:
                    total += batch.size
                    is_last = self._is_last(started)
                    prefetch = not is_last and not batch.exclusive
                    next_batch = prefetcher.submit(self._claim_batch, allow_exclusive=False) if prefetch else None
                    try:
                        self._encode_all(batch.fetched)
                        if batch.run:
                            self._run_exclusive(batch.run)
                    finally:
                        batch.release()
                    if is_last:
                        break
                    batch = next_batch.result() if next_batch else EMPTY_BATCH
                    if batch.is_empty:
                        if self._claimer.exclusive_waits:  # for nothing but slow downloads, which are resumed later
                            self._requeue_fetching()
                        batch = self._claim_batch(allow_exclusive=True)
                self._requeue_fetching()
            finally:
                self.activity = IDLE
        return total

    def _is_last(self, started: float) -> bool:
        """Whether the time is up for the worker to read its other messages."""
        overtime = self._batching.max_overtime if self._fetches.pending else 0.0
        return self._stopping or time.monotonic() > started + self._batching.max_duration + overtime

    def _requeue_fetching(self) -> None:
        """Return the jobs with slow downloads to the queue. Their next attempt resumes the downloads."""
        jobs = self._fetches.abandon()
        if jobs and not self._stopping:  # of a worker that stops, all jobs are released
            with self._database.transaction() as session:
                claims.requeue(session, [job.id for job in jobs], self._worker_id)

    def _claim_batch(self, *, allow_exclusive: bool) -> Batch:
        """Claim a batch, and take what is fetched. An exclusive job is allowed only if the worker has no other jobs."""
        alone = allow_exclusive and not self._fetches.pending
        jobs = [] if self._fetches.is_full else self._claimer.claim(allow_exclusive=alone)
        if allow_exclusive and (jobs or self._fetches.pending):  # nothing else is running
            self.activity = f"fetching {len(jobs)}" if jobs else "waiting for downloads"
        job_claims = [self._claim_monitor.track(job.id) for job in jobs]
        if jobs and (runner := self._runners.get(Source(jobs[0].model.source))):
            return Batch(1, True, [], ExclusiveRun(runner, jobs[0], job_claims[0]))
        is_suspect = any(job.worker_deaths for job in jobs)
        self._fetches.start(jobs, job_claims)
        fetched = self._fetches.take(math.inf if is_suspect else self._batching.patience)
        return Batch(len(jobs), is_suspect, fetched)

    def _encode_all(self, batch: Sequence[ClaimedJob]) -> None:
        """Encode a batch, grouped by base."""
        groups: dict[tuple[str, str], list[ClaimedJob]] = defaultdict(list)
        for claimed in batch:
            groups[claimed.base.repo, claimed.base.sha].append(claimed)
        # bases in memory first; the sort is stable
        for group in sorted(groups.values(), key=lambda group: group[0].base not in self._bases):
            if not self._requeue_group(group):
                for part in _split_by_path(group):
                    self._encode(group[0].base, part)

    def _requeue_group(self, group: Sequence[ClaimedJob]) -> bool:
        """Requeue jobs whose base turned out to differ from the hint, if other jobs are due for the bases in memory."""
        base, jobs = group[0].base, [claimed.job for claimed in group]
        waited = max((datetime.now(UTC) - job.available_at).total_seconds() for job in jobs)
        was_expected = all(job.base_hint == base.repo for job in jobs)
        if base in self._bases or not self._bases.repos or was_expected or waited > self._batching.max_wait:
            return False
        with self._database.transaction() as session:
            if not claims.has_due(session, self._bases.repos, min(job.priority for job in jobs)):
                return False
            claims.requeue(session, [job.id for job in jobs], self._worker_id, base.repo)
        return True

    def _release_remaining(self, *, count_deaths: bool) -> None:
        """Requeue the jobs that did not end, because this worker may get no other notification. With `count_deaths`,
        the call ended with an error that belongs to no single job: it counts as a worker death for each job. The
        notifications of the jobs still queued may have been consumed by this call, so one is sent for all of them.
        """
        with self._database.transaction() as session:
            if count_deaths:
                self._count_deaths(session)
            else:
                attempts.release(session, [self._worker_id])
            if (job_id := claims.find_oldest_due(session)) is not None:
                enqueue_after_commit(session, job_id)

    def _count_deaths(self, session: Session) -> None:
        recovery.count_deaths(session, [self._worker_id], self._retries.max_worker_deaths)

    def _fetch(self, job: Job, claim: Claim) -> ClaimedJob | None:
        try:
            with cancel_scope(lambda: claim.lost), self._stages.run(Stage.FETCH, [job.id]):
                fetched = self._fetcher.fetch(job, self._worker_id, stop=is_cancelled)
            return ClaimedJob(claim, fetched) if fetched else None
        except BaseException as error:  # native code may raise a bare BaseException; signals do not reach this thread
            if not claim.lost:  # a lost job may have been claimed again, and then another thread handles it
                self._outcomes.store_failure(job, error)
            return None

    def _encode(self, base: ResolvedBase, group: Sequence[ClaimedJob]) -> None:
        """Encode jobs of one base in one call, and store the results. A group that fails for a reason that may be one
        of its jobs', or its size, is encoded in halves.
        """
        if self._stopping or not (group := self._still_claimed(group)):
            return
        self.activity = f"encoding {len(group)} on {base.repo}"
        resident, results = None, None
        try:
            with (
                cancel_scope(lambda: all(claimed.claim.lost for claimed in group)),
                self._stages.run(Stage.FORWARD, [claimed.job.id for claimed in group]),
            ):
                resident = self._bases.get(base)
                results = resident.encoder.encode([claimed.finetune for claimed in group])
        except Cancelled:
            return
        except ENDS_PROCESS:
            raise
        except BaseException as error:
            is_divisible = len(group) > 1 and resident is not None
            if is_divisible and (isinstance(error, DeadlineExceeded) or not isinstance(error, CatalogError)):
                log.error("%s jobs could not be encoded together; encoding them in halves", len(group), exc_info=error)
                clear_frames(error)
            else:
                is_divisible = False
                for claimed in group:
                    self._outcomes.store_failure(claimed.job, error)
        if resident is not None and results is not None:
            self._store_results(base, resident, group, results)
            return
        release_unused()  # here and not in the `except` block, in which the failed forward pass is alive
        if is_divisible:
            middle = len(group) // 2
            for half in (group[:middle], group[middle:]):
                self._encode(base, half)

    def _still_claimed(self, group: Sequence[ClaimedJob]) -> Sequence[ClaimedJob]:
        """The jobs that this worker still has, which are being encoded from now on."""
        job_ids = [claimed.job.id for claimed in group]
        try:
            with self._database.transaction() as session:
                claimed_ids = attempts.update_progress(
                    session, job_ids, self._worker_id, JobState.ENCODING, FETCH_SHARE
                )
        except Exception as error:
            for claimed in group:
                self._outcomes.store_failure(claimed.job, error)
            return []
        return [claimed for claimed in group if claimed.job.id in claimed_ids]

    def _store_results(
        self,
        base: ResolvedBase,
        resident: Resident,
        group: Sequence[ClaimedJob],
        results: Sequence[Encoding | CatalogError],
    ) -> None:
        for claimed, result in zip(group, results, strict=True):
            if isinstance(result, CatalogError):
                self._outcomes.store_failure(claimed.job, result)
        encoded = [
            (claimed, result) for claimed, result in zip(group, results, strict=True) if isinstance(result, Encoding)
        ]
        self.activity = f"storing {len(encoded)} of {base.repo}"
        try:
            retry_while_database_down(lambda: self._outcomes.store(resident, encoded))
        except Exception as error:
            for claimed, _ in encoded:
                self._outcomes.store_failure(claimed.job, error)

    def _run_exclusive(self, run: ExclusiveRun) -> None:
        self.activity = f"running {run.runner.title} on {run.job.base_hint}"
        try:
            with cancel_scope(lambda: run.claim.lost), self._stages.run(run.runner.stage, [run.job.id]):
                run.runner.run(run.job)
            return
        except Cancelled:
            return
        except ENDS_PROCESS:
            raise
        except BaseException as error:
            if not run.claim.lost:
                self._outcomes.store_failure(run.job, error)
        release_unused()


def _split_by_path(group: Sequence[ClaimedJob]) -> list[list[ClaimedJob]]:
    """Split a group into the parts that are encoded in one call: all plain LoRA adapters together, and other fine-tunes
    one by one, because they run one by one anyway and can then be cancelled separately.
    """
    loras = [claimed for claimed in group if claimed.finetune.path == "lora"]
    singles = [[claimed] for claimed in group if claimed.finetune.path != "lora"]
    return [loras, *singles] if loras else singles
