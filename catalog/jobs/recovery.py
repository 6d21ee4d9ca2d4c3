"""Takes jobs back from workers that died."""

from __future__ import annotations

from catalog.database import Database
from catalog.jobs.repository import recovery
from catalog.jobs.repository.recovery import Recovered
from catalog.queue import ring_after_commit

RINGS_A_SWEEP = 16  # one bell is enough for a worker to go through all that waits


def recover(database: Database, *, silence: float, deadly: int) -> Recovered:
    """Take jobs back from workers whose heart has not beaten for `silence` seconds, and ring for them.

    What `deadly` workers died of is quarantined. Safe to run in any number of processes at once.
    """
    with database.transaction() as session:
        recovered = recovery.recover(session, silence, deadly)
        for job_id in recovered.released[:RINGS_A_SWEEP]:
            ring_after_commit(session, job_id)
    return recovered
