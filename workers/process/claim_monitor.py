"""Which of the jobs that this worker took are its own still: they may be cancelled, or taken over, at any moment."""

from __future__ import annotations

import threading
from typing import Self

from catalog.database import Database
from catalog.jobs.repository import claims
from catalog.periodic import PeriodicThread

INTERVAL = 0.5  # seconds


class Claim:
    """A worker's claim to one job."""

    def __init__(self) -> None:
        self._lost = threading.Event()

    def lose(self) -> None:
        self._lost.set()

    def wait(self, timeout: float) -> bool:
        """Until it is lost; False when that does not happen within `timeout` seconds."""
        return self._lost.wait(timeout)

    @property
    def lost(self) -> bool:
        return self._lost.is_set()


class Watch:
    """While it is entered, a thread looks every `INTERVAL` seconds whether the jobs are this worker's still. The thread
    outlives every error: without it nobody would notice a cancelled job.
    """

    def __init__(self, database: Database, worker_id: int) -> None:
        self._database = database
        self._worker_id = worker_id
        self._claims: dict[int, Claim] = {}
        self._lock = threading.Lock()
        self._gave_up = False
        self._thread = PeriodicThread("claim monitor", self.look, INTERVAL)

    def __enter__(self) -> Self:
        self._thread = PeriodicThread("claim monitor", self.look, INTERVAL)  # a thread runs once only
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.stop()
        self._claims.clear()

    def take(self, job_id: int) -> Claim:
        """A new claim to a job that was just claimed."""
        with self._lock:
            self._claims[job_id] = claim = Claim()
            if self._gave_up:
                claim.lose()
        return claim

    def give_up(self) -> None:
        """Lose every claim, and each that is taken from now on: this worker stops."""
        with self._lock:
            self._gave_up = True
            for claim in self._claims.values():
                claim.lose()

    def look(self) -> None:
        """Raises `DatabaseUnavailable`."""
        with self._lock:
            claimed = dict(self._claims)  # before the look: what is claimed after it would seem lost
        if not claimed:
            return
        with self._database.transaction() as session:
            held = claims.held(session, self._worker_id)
        for job_id in claimed.keys() - held:
            claimed[job_id].lose()
        with self._lock:
            self._claims = {job_id: claim for job_id, claim in self._claims.items() if not claim.lost}
