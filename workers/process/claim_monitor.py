"""Monitoring of claims: a job may be cancelled, or claimed by another worker, at any moment."""

from __future__ import annotations

import threading
from typing import Self

from catalog.database import Database
from catalog.jobs.repository import claims
from catalog.threads.periodic_thread import PeriodicThread

POLL_INTERVAL = 0.5  # seconds


class Claim:
    """A worker's claim to one job."""

    def __init__(self) -> None:
        self._lost = threading.Event()

    def lose(self) -> None:
        self._lost.set()

    def wait(self, timeout: float) -> bool:
        """Wait until the claim is lost. Returns False if that does not happen within `timeout` seconds."""
        return self._lost.wait(timeout)

    @property
    def lost(self) -> bool:
        return self._lost.is_set()


class ClaimMonitor:
    """Within the context, a thread checks every `POLL_INTERVAL` seconds which claims this worker still has. The thread
    survives every error: without it, a cancelled job would run to its end.
    """

    def __init__(self, database: Database, worker_id: int) -> None:
        self._database = database
        self._worker_id = worker_id
        self._claims: dict[int, Claim] = {}
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = PeriodicThread("claim monitor", self.poll, POLL_INTERVAL)

    def __enter__(self) -> Self:
        self._thread = PeriodicThread("claim monitor", self.poll, POLL_INTERVAL)  # a thread runs once only
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.stop()
        self._claims.clear()

    def track(self, job_id: int) -> Claim:
        """Monitor the claim to a job that was just claimed."""
        with self._lock:
            self._claims[job_id] = claim = Claim()
            if self._stopping:
                claim.lose()
        return claim

    def lose_all(self) -> None:
        """Lose every claim, and every claim tracked from now on: this worker stops."""
        with self._lock:
            self._stopping = True
            for claim in self._claims.values():
                claim.lose()

    def poll(self) -> None:
        """Compare the claims with the database. Raises `DatabaseUnavailable`."""
        with self._lock:
            claimed = dict(self._claims)  # before the query: a job claimed after it would seem lost
        if not claimed:
            return
        with self._database.transaction() as session:
            claimed_in_database = claims.claimed_ids(session, self._worker_id)
        for job_id in claimed.keys() - claimed_in_database:
            claimed[job_id].lose()
        with self._lock:
            self._claims = {job_id: claim for job_id, claim in self._claims.items() if not claim.lost}
