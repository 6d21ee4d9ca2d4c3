"""The fetches of a worker's claimed jobs, each in a thread of its own, so that a slow one holds up no other job."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Self

from catalog.tables import Job
from workers.bases.resolver import ResolvedBase
from workers.finetunes.reading import FineTune
from workers.ingest.fetcher import Fetched
from workers.process.claim_monitor import Claim
from workers.process.file_locks import FileLocks

CLAIM_POLL_INTERVAL = 0.2  # seconds between checks whether the claim of a downloading job is lost
SLOW_POLL_INTERVAL = 1.0  # seconds that a worker with nothing but slow fetches waits before it looks for other jobs
MAX_BATCHES = 4  # of fetches that run at a time


@dataclass(frozen=True)
class ClaimedJob:
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


Fetch = Callable[[Job, Claim], ClaimedJob | None]  # None: the job has ended, failed or was lost


@dataclass(eq=False)
class _Running:
    job: Job
    claim: Claim
    future: Future[ClaimedJob | None]
    started: float = field(default_factory=time.monotonic)

    @property
    def is_awaited(self) -> bool:
        return not self.future.done() and not self.claim.lost


class Fetches:
    """Fetches jobs in the background. `take` returns the fetched ones and leaves the others running, to be taken later.

    Leaving the context abandons what still runs, and releases the files of everything that was fetched. Not
    thread-safe.
    """

    def __init__(self, fetch: Fetch, batch_size: int) -> None:
        self._fetch = fetch
        self._batch_size = batch_size
        self._running: list[_Running] = []
        self._locks: list[FileLocks] = []  # of the jobs that were taken

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()
        while self._locks:
            self._locks.pop().release()

    @property
    def pending(self) -> bool:
        """Whether there are jobs that were not taken yet."""
        return bool(self._running)

    @property
    def is_full(self) -> bool:
        """Whether no more jobs should be claimed before some are taken."""
        return len(self._running) >= MAX_BATCHES * self._batch_size

    def start(self, jobs: Sequence[Job], job_claims: Sequence[Claim]) -> None:
        if not jobs:
            return
        pool = ThreadPoolExecutor(len(jobs), "fetch")
        for job, claim in zip(jobs, job_claims, strict=True):
            self._running.append(_Running(job, claim, pool.submit(self._fetch, job, claim)))
        pool.shutdown(wait=False)  # do not wait for downloads of lost jobs

    def take(self, patience: float) -> list[ClaimedJob]:
        """The jobs that are fetched by now. Jobs that failed, ended or were lost are left out.

        Waits for each fetch until `patience` seconds after its start, and if all are slower than that, for a second at
        most.
        """
        while young := [fetch for fetch in self._awaited() if time.monotonic() - fetch.started < patience]:
            wait([fetch.future for fetch in young], CLAIM_POLL_INTERVAL)
        awaited = self._awaited()
        if len(awaited) == len(self._running):
            wait([fetch.future for fetch in awaited], SLOW_POLL_INTERVAL, FIRST_COMPLETED)
        return self._collect()

    def abandon(self) -> list[Job]:
        """Cancel the fetches that were not taken, without waiting for them to end. Returns their jobs."""
        jobs = [fetch.job for fetch in self._running]
        while self._running:
            self._let_go(self._running.pop())
        return jobs

    def _awaited(self) -> list[_Running]:
        return [fetch for fetch in self._running if fetch.is_awaited]

    def _collect(self) -> list[ClaimedJob]:
        collected = []
        for fetch in list(self._running):
            if fetch.is_awaited:
                continue
            self._running.remove(fetch)
            if fetch.claim.lost:
                self._let_go(fetch)
            elif (claimed := fetch.future.result()) is not None:
                self._locks.append(claimed.fetched.locks)
                collected.append(claimed)
        return collected

    def _let_go(self, fetch: _Running) -> None:
        """Make a fetch stop at its next check, and release its files once it has ended."""
        fetch.claim.lose()
        fetch.future.add_done_callback(_release_locks)


def _release_locks(future: Future[ClaimedJob | None]) -> None:
    claimed = None if future.exception() else future.result()
    if claimed is not None:
        claimed.fetched.locks.release()
