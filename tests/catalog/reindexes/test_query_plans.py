"""The plans of what a reindex executes page by page, with twenty thousand models: none looks at a whole table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from catalog.database import Database
from catalog.jobs.repository import jobs
from catalog.reindexes import service as reindex_service
from catalog.reindexes.repository import backfill, reindexes
from catalog.reindexes.service import Selection
from catalog.spaces import repository as spaces
from catalog.spaces.contract import contract_told
from catalog.tables import Reindex
from tests.support.catalog import SPACE
from tests.support.query_plans import know_all_tables, scans
from tests.support.reindexes import contract

MODELS = 20_000
LARGE = ("jobs", "models", "revisions", "vectors")
FILL = (
    "INSERT INTO models (repo_id, owner, source, state) "
    "SELECT 'owner/m' || n, 'owner', 'hub', CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'indexed' END "
    "FROM generate_series(1, :models) AS n",
    "INSERT INTO revisions (model_id, sha, current, kind, base_repo, base_sha, base_evidence) "
    "SELECT id, 'sha', true, 'lora', CASE WHEN id % 100 = 0 THEN 'rare/base' ELSE 'tiny/base' END, 'b', '{}' "
    "FROM models",
    "INSERT INTO vectors (space_id, model_id, revision_id, seq, dimension, data, norm, no_shift) "
    "SELECT space.id, revisions.model_id, revisions.id, nextval('change_seq'), 1, '\\x00000000', 1, false "
    "FROM revisions CROSS JOIN (SELECT id FROM spaces) AS space WHERE :models > 0",
    "INSERT INTO jobs (model_id, requested_revision, reindex_id, priority, state) "
    "SELECT id, 'sha', CASE WHEN id % 10 = 0 THEN 1 END, 2, CASE WHEN id % 50 = 0 THEN 'failed' ELSE 'queued' END "
    "FROM models WHERE :models > 0",
)


@pytest.fixture
def full(database: Database) -> Database:
    """Models with vectors in a space that serves and in one beside it; a tenth have jobs of a reindex."""
    with database.transaction() as session:
        reindexes.add(session, {"everything": True})
        for space in (SPACE, dataclasses.replace(SPACE, edition=1)):
            spaces.ensure(session, space, 1)
        for statement in FILL:
            session.execute(text(statement), {"models": MODELS})
    know_all_tables(database)
    return database


def select(selection: Selection, after: int = 5_000) -> Callable[[Session], object]:
    def work(session: Session) -> object:
        told = contract_told(contract())
        return reindexes.candidates(session, selection.selected(session, told), after, reindex_service.LOOKED_AT)

    return work


def carry(session: Session) -> object:
    source, target = (spaces.get(session, dataclasses.replace(SPACE, edition=n).key) for n in (0, 1))
    return backfill.carry(session, source, target, 1, after=MODELS // 2, limit=reindex_service.CARRIED)


HOT: dict[str, Callable[[Session], object]] = {
    "a page of all": select(Selection(everything=True)),
    "a page of a base": select(Selection(base="tiny/base")),
    "a page of a rare base": select(Selection(base="rare/base")),
    "a page of a state": select(Selection(state="failed")),
    "a page of a space": select(Selection(space=SPACE.key)),
    "a page of what is outdated": select(Selection(outdated=True)),
    "is a job active": lambda session: reindexes.any_job_active(session, 1),
    "cancel a page of jobs": lambda session: reindexes.cancel_jobs(session, 1, 20),
    "carry a page": carry,
    "discard a page": lambda session: backfill.discard(session, 1, reindex_service.CARRIED),
    "retry a job": lambda session: jobs.again(session, 50, None),
    "where a vector goes": lambda session: spaces.home(session, SPACE, 1),
    "is it large": lambda session: backfill.at_least(session, 1, 100),
    "what is open": reindexes.open_ones,
    "what a reindex is": lambda session: session.get(Reindex, 1),
}


def test_no_page_of_a_reindex_reads_a_whole_table(full: Database):
    found = {name: scans(full, work, LARGE) for name, work in HOT.items()}
    assert {name: plans for name, plans in found.items() if plans} == {}


def test_a_selection_that_is_counted_reads_the_models(full: Database):
    with full.transaction() as session:
        selected = Selection(everything=True).selected(session, [])
        assert reindexes.count(session, selected) == MODELS
