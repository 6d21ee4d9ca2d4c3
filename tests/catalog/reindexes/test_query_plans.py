"""The query plans of the statements that a reindex executes per page, with twenty thousand models: none may scan a
whole table.
"""

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
from catalog.reindexes.service import ReindexSelection
from catalog.spaces import repository as spaces
from catalog.spaces.contract import describe_contract
from catalog.tables import Reindex
from tests.support.catalog import SPACE
from tests.support.query_plans import analyze_tables, sequential_scans
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
    """Models with vectors in a serving space and in a new one; a tenth have jobs of a reindex."""
    with database.transaction() as session:
        reindexes.create(session, {"everything": True})
        for space in (SPACE, dataclasses.replace(SPACE, edition=1)):
            spaces.ensure(session, space, 1)
        for statement in FILL:
            session.execute(text(statement), {"models": MODELS})
    analyze_tables(database)
    return database


def select(selection: ReindexSelection, after: int = 5_000) -> Callable[[Session], object]:
    def list_page(session: Session) -> object:
        query = selection.query(session, describe_contract(contract()))
        return reindexes.list_candidates(session, query, after, reindex_service.CANDIDATES_PER_PAGE)

    return list_page


def copy_page(session: Session) -> object:
    source, target = (spaces.get(session, dataclasses.replace(SPACE, edition=n).key) for n in (0, 1))
    return backfill.copy_page(session, source, target, 1, after=MODELS // 2, limit=reindex_service.VECTORS_PER_PAGE)


HOT: dict[str, Callable[[Session], object]] = {
    "a page of all": select(ReindexSelection(everything=True)),
    "a page of a base": select(ReindexSelection(base="tiny/base")),
    "a page of a rare base": select(ReindexSelection(base="rare/base")),
    "a page of a state": select(ReindexSelection(state="failed")),
    "a page of a space": select(ReindexSelection(space=SPACE.key)),
    "a page of outdated models": select(ReindexSelection(outdated=True)),
    "has active jobs": lambda session: reindexes.has_active_jobs(session, 1),
    "cancel a page of jobs": lambda session: reindexes.cancel_jobs(session, 1, 20),
    "backfill a page": copy_page,
    "discard a page": lambda session: backfill.discard_page(session, 1, reindex_service.VECTORS_PER_PAGE),
    "retry a job": lambda session: jobs.requeue(session, 50, None),
    "write target": lambda session: spaces.get_write_target(session, SPACE, 1),
    "has at least 100 vectors": lambda session: backfill.has_at_least(session, 1, 100),
    "open reindexes": reindexes.list_open,
    "get a reindex": lambda session: session.get(Reindex, 1),
}


def test_no_page_of_a_reindex_scans_a_whole_table(full: Database):
    scanned = {name: sequential_scans(full, function, LARGE) for name, function in HOT.items()}
    assert {name: plans for name, plans in scanned.items() if plans} == {}


def test_selected_models_are_counted(full: Database):
    with full.transaction() as session:
        query = ReindexSelection(everything=True).query(session, [])
        assert reindexes.count_selected(session, query) == MODELS
