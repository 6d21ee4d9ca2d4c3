"""Query plans of the hot statements with 20,000 jobs: none scans a whole table."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from catalog.database import Database
from catalog.jobs.quotas import Quota
from catalog.jobs.repository import attempts, claims, jobs, recovery
from catalog.jobs.repository import events as job_events
from catalog.jobs.repository.events import EventCursor
from catalog.jobs.submissions import enqueue_repo
from catalog.models.repo_ref import RepoRef
from catalog.tables import JobState, Priority
from tests.support import catalog as entries
from tests.support.query_plans import analyze_tables, sequential_scans

JOBS = 20_000


@pytest.fixture
def filled(database: Database) -> Database:
    """A database with jobs of a hundred bases, most of them queued."""
    with database.transaction() as session:
        session.execute(
            text(
                "INSERT INTO models (repo_id, owner, source) "
                "SELECT 'owner/m' || n, 'owner', 'hub' FROM generate_series(1, :jobs) AS n"
            ),
            {"jobs": JOBS},
        )
        session.execute(
            text(
                "INSERT INTO jobs (model_id, base_hint, priority, submitter, state) "
                "SELECT id, 'base/' || id % 100, 2, 'anonymous', CASE WHEN id % 50 = 0 THEN 'failed' ELSE 'queued' END "
                "FROM models"
            )
        )
    analyze_tables(database)
    return database


def claim_batches(session: Session) -> None:
    for _ in range(claims.OLDEST_EVERY):
        due = claims.find_next_due(session, ["base/1", "base/none"], 100)
        claims.claim(session, due.job_id, 1, 8)


HOT: dict[str, Callable[[Session], object]] = {
    "submit": lambda session: enqueue_repo(session, RepoRef("new/model"), Priority.USER, Quota("anonymous", JOBS * 2)),
    "submit at the limit": lambda session: jobs.count_active(session, "anonymous", 10_001),
    "submit again": lambda session: enqueue_repo(session, RepoRef("owner/m7"), Priority.USER, Quota("anonymous", 10)),
    "submit what is indexed": lambda session: jobs.find_latest_done(session, 7, "sha"),
    "claim": claim_batches,
    "is due": lambda session: claims.is_due(session, 7),
    "has due jobs of a base": lambda session: claims.has_due(session, ["base/1"], 2),
    "claimed ids": lambda session: claims.claimed_ids(session, 1),
    "progress": lambda session: attempts.update_progress(session, [7], 1, JobState.ENCODING, 0.5),
    "finish": lambda session: attempts.finish(session, 7, 1, "sha"),
    "cancel": lambda session: jobs.cancel(session, 7),
    "retry": lambda session: jobs.requeue(session, 50, None),
    "recover": lambda session: recovery.recover(session, 30, 2),
    "stale queued": lambda session: recovery.start_redelivery(session, 0, 16),
    "events": lambda session: job_events.list_page(session, EventCursor(0, 0), limit=500),
    "events of a job": lambda session: job_events.list_page(session, EventCursor(0, 0), job_id=7, limit=500),
    "show a job": lambda session: jobs.get(session, 7),
    "list jobs": lambda session: jobs.list_page(session, state=JobState.QUEUED, before=JOBS, limit=50),
}


def test_no_hot_statement_scans_a_whole_table(filled: Database):
    entries.put_worker(filled)
    scanned = {name: sequential_scans(filled, work) for name, work in HOT.items()}
    assert {name: plans for name, plans in scanned.items() if plans} == {}


def test_full_table_scan_is_detected(filled: Database):
    statement = text("SELECT count(*) FROM jobs WHERE progress = 0.3")
    assert sequential_scans(filled, lambda session: session.execute(statement))
