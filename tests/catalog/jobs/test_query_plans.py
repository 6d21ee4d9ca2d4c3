"""The plans of the hot statements, with twenty thousand jobs: none looks at a whole table."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from catalog.database import Database
from catalog.jobs.quotas import Quota
from catalog.jobs.repository import attempts, claims, jobs, recovery
from catalog.jobs.repository import events as job_events
from catalog.jobs.repository.events import Place
from catalog.jobs.submissions import submitted
from catalog.models.repo_ref import RepoRef
from catalog.tables import JobState, Priority
from tests.support import catalog as entries
from tests.support.query_plans import know_all_tables, scans

JOBS = 20_000


@pytest.fixture
def full(database: Database) -> Database:
    """Jobs of a hundred bases, most of them queued."""
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
    know_all_tables(database)
    return database


def take(session: Session) -> None:
    for _ in range(claims.OLDEST_EVERY):
        due = claims.next_due(session, ["base/1", "base/none"], 100)
        claims.claim(session, due.job_id, 1, 8)


HOT: dict[str, Callable[[Session], object]] = {
    "submit": lambda session: submitted(session, RepoRef("new/model"), Priority.PERSON, Quota.of_key(None, JOBS * 2)),
    "submit at the limit": lambda session: jobs.count_active(session, "anonymous", 10_001),
    "submit again": lambda session: submitted(session, RepoRef("owner/m7"), Priority.PERSON, Quota.of_key(None, 10)),
    "submit what is indexed": lambda session: jobs.latest_done(session, 7, "sha"),
    "claim": take,
    "is it due": lambda session: claims.is_due(session, 7),
    "is there work for a base": lambda session: claims.any_due(session, ["base/1"], 2),
    "what a worker has": lambda session: claims.held(session, 1),
    "progress": lambda session: attempts.advance(session, [7], 1, JobState.ENCODING, 0.5),
    "finish": lambda session: attempts.finish(session, 7, 1, "sha"),
    "cancel": lambda session: jobs.cancel(session, 7),
    "retry": lambda session: jobs.again(session, 50, None),
    "recover": lambda session: recovery.recover(session, 30, 2),
    "ring": lambda session: recovery.due_for_ringing(session, 0, 16),
    "events": lambda session: job_events.page(session, Place(0, 0), limit=500),
    "events of a job": lambda session: job_events.page(session, Place(0, 0), job_id=7, limit=500),
    "show a job": lambda session: jobs.get(session, 7),
    "list jobs": lambda session: jobs.page(session, state=JobState.QUEUED, before=JOBS, limit=50),
}


def test_no_hot_statement_reads_a_whole_table(full: Database):
    entries.put_worker(full)
    found = {name: scans(full, work) for name, work in HOT.items()}
    assert {name: plans for name, plans in found.items() if plans} == {}


def test_a_statement_that_reads_a_whole_table_is_seen(full: Database):
    assert scans(full, lambda session: session.execute(text("SELECT count(*) FROM jobs WHERE progress = 0.3")))
