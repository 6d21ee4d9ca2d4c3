"""The plans of what everybody's requests execute, where a few of twenty thousand models are private."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.jobs.repository import jobs
from catalog.maps import repository as maps
from catalog.models.repository import models
from catalog.spaces import repository as spaces
from catalog.tables import Map
from catalog.vectors.repository import vectors
from tests.support.catalog import SPACE
from tests.support.query_plans import know_all_tables, scans

MODELS = 20_000
LARGE = ("jobs", "models", "revisions", "vectors")
ME = Viewer("me")
FILL = (
    "INSERT INTO models (repo_id, owner, source, state, private) "
    "SELECT 'owner/m' || n, 'owner', 'hub', 'indexed', n % 200 = 0 FROM generate_series(1, :models) AS n",
    "INSERT INTO model_access (model_id, submitter) SELECT id, 'me' FROM models WHERE private AND :models > 0",
    "INSERT INTO revisions (model_id, sha, current, kind, base_repo, base_sha, base_evidence) "
    "SELECT id, 'sha', true, 'lora', 'tiny/base', 'b', '{}' FROM models WHERE :models > 0",
    "INSERT INTO vectors (space_id, model_id, revision_id, seq, dimension, data, norm, no_shift) "
    "SELECT spaces.id, revisions.model_id, revisions.id, nextval('change_seq'), 1, '\\x00000000', 1, false "
    "FROM revisions CROSS JOIN spaces WHERE :models > 0",
    "INSERT INTO jobs (model_id, state, viewer) SELECT id, 'done', CASE WHEN private THEN 'me' END "
    "FROM models WHERE :models > 0",
)
HOT: dict[str, Callable[[Session], object]] = {
    "spaces": spaces.page,
    "my spaces": lambda session: spaces.page(session, ME),
    "a space": lambda session: spaces.get(session, SPACE.key),
    "the map": lambda session: maps.standing(session, None),
    "models": lambda session: models.page(session, after=100),
    "my models": lambda session: models.page(session, after=100, viewer=ME),
    "a model of mine": lambda session: models.get(session, "owner/m200", ME),
    "its vector": lambda session: vectors.newest(session, "owner/m200", viewer=ME),
    "names": lambda session: models.by_ids(session, range(1, 11), ME),
    "jobs": jobs.page,
    "my jobs": lambda session: jobs.page(session, viewer=ME),
}


@pytest.fixture
def full(database: Database) -> Database:
    with database.transaction() as session:
        space = spaces.ensure(session, SPACE, 1)
        for statement in FILL:
            session.execute(text(statement), {"models": MODELS})
        empty = {"models": 0, "model_ids": b"", "places": b"", "distortion": b""}
        session.add(Map(space_id=space.id, covered_seq=0, parameters={}, seconds=1, **empty))
    know_all_tables(database)
    return database


def test_no_request_reads_a_whole_table_to_hide_what_is_private(full: Database):
    found = {name: scans(full, work, LARGE) for name, work in HOT.items()}
    assert {name: plans for name, plans in found.items() if plans} == {}


def test_counts_are_of_what_everybody_may_see(full: Database):
    with full.transaction() as session:
        assert sum(models.counts(session).values()) == sum(jobs.counts(session).values()) == MODELS - MODELS // 200
        assert PUBLIC.sees(jobs.page(session, limit=1)[0].viewer)
