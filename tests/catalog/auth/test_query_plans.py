"""Query plans of frequent requests when a few of 20,000 models are private."""

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
from tests.support.query_plans import analyze_tables, sequential_scans

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
REQUESTS: dict[str, Callable[[Session], object]] = {
    "spaces": spaces.list_visible,
    "my spaces": lambda session: spaces.list_visible(session, ME),
    "a space": lambda session: spaces.get(session, SPACE.key),
    "the map": lambda session: maps.find_current_version(session, None),
    "models": lambda session: models.list_page(session, after=100),
    "my models": lambda session: models.list_page(session, after=100, viewer=ME),
    "a model of mine": lambda session: models.get(session, "owner/m200", ME),
    "its vector": lambda session: vectors.get_encoding(session, "owner/m200", viewer=ME),
    "names": lambda session: models.get_by_ids(session, range(1, 11), ME),
    "jobs": jobs.list_page,
    "my jobs": lambda session: jobs.list_page(session, viewer=ME),
}


@pytest.fixture
def filled(database: Database) -> Database:
    with database.transaction() as session:
        space = spaces.ensure(session, SPACE, 1)
        for statement in FILL:
            session.execute(text(statement), {"models": MODELS})
        empty = {"models": 0, "model_ids": b"", "coordinates": b"", "distortion": b""}
        session.add(Map(space_id=space.id, covered_seq=0, parameters={}, seconds=1, **empty))
    analyze_tables(database)
    return database


def test_hiding_private_models_scans_no_whole_table(filled: Database):
    plans_by_name = {name: sequential_scans(filled, request, LARGE) for name, request in REQUESTS.items()}
    assert {name: plans for name, plans in plans_by_name.items() if plans} == {}


def test_counts_include_only_public_rows(filled: Database):
    with filled.transaction() as session:
        assert (
            sum(models.count_by_state(session).values())
            == sum(jobs.count_by_state(session).values())
            == MODELS - MODELS // 200
        )
        assert PUBLIC.can_see(jobs.list_page(session, limit=1)[0].viewer)
