"""Functions that run the steps of a reindex without workers, and store vectors as a worker would."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from sqlalchemy import select

from catalog.database import Database
from catalog.jobs.repository import jobs
from catalog.models.repository import models
from catalog.reindexes import readiness
from catalog.reindexes import service as reindex_service
from catalog.reindexes.repository import reindexes
from catalog.reindexes.service import ReindexSelection
from catalog.spaces import repository as spaces
from catalog.spaces.contract import Space
from catalog.tables import Job, JobState, ModelState, Reindex, ReindexState
from catalog.vectors.repository import feed
from tests.support.catalog import SPACE

EXACT_BYTES = 2**20  # bytes
EVERYTHING = ReindexSelection(everything=True)


def contract(space: Space = SPACE) -> list[Space]:
    """The contract of a worker that measures into this space, for any base."""
    return [dataclasses.replace(space, base_repo=None, base_sha=None)]


def start_reindex(database: Database, selection: ReindexSelection = EVERYTHING, space: Space = SPACE) -> int:
    """Create a reindex and all its jobs; returns the id of the reindex."""
    reindex_id = reindex_service.create(database, selection).id
    while reindex_service.queue_page(database, reindex_id, contract(space)):
        pass
    return reindex_id


def get_reindex(database: Database, reindex_id: int) -> Reindex:
    with database.transaction() as session:
        return reindexes.get(session, reindex_id)


def list_jobs(database: Database, reindex_id: int) -> list[Job]:
    with database.transaction() as session:
        return list(session.scalars(select(Job).where(Job.reindex_id == reindex_id).order_by(Job.id)))


def end_job(database: Database, job: Job, state: JobState = JobState.DONE, code: str | None = None) -> None:
    with database.transaction() as session:
        row = jobs.get(session, job.id)
        row.state, row.error_code = state, code


def measure_job(
    database: Database, job: Job, vector: Sequence[float], space: Space = SPACE, *, no_shift: bool = False
) -> None:
    """Finish a job of a reindex with a measured vector."""
    values = np.asarray(vector, np.float32)
    with database.transaction() as session:
        feed.lock_feed(session)
        revision = models.find_current_revision(session, job.model_id)
        row = spaces.ensure(session, dataclasses.replace(space, edition=job.reindex_id), values.size)
        feed.store(session, row, revision, values, norm=float(np.linalg.norm(values)), no_shift=no_shift)
        jobs.get(session, job.id).state = JobState.DONE


def make_ready(database: Database, reindex_id: int) -> Reindex:
    """Run the stages after the jobs, until the reindex is ready."""
    assert reindex_service.finish_measuring(database, reindex_id)
    while reindex_service.backfill_spaces(database, reindex_id):
        pass
    if get_reindex(database, reindex_id).state == ReindexState.RUNNING:
        assert readiness.make_ready(database, reindex_id, EXACT_BYTES)
    return get_reindex(database, reindex_id)


def vectors_by_model(database: Database, space: Space) -> dict[str, list[float]]:
    """The newest vectors of a space by repo id."""
    with database.transaction() as session:
        row = spaces.get(session, space.key)
        newest = {change.model_id: change.vector for change in feed.list_space_changes(session, {row.id: 0}, 10_000)}
        by_id = models.get_by_ids(session, newest)
        return {by_id[id].repo_id: vector.tolist() for id, vector in newest.items() if vector is not None}


def serving_key(database: Database, space: Space = SPACE) -> str:
    with database.transaction() as session:
        return spaces.find_serving(session, space).key


def state_of(database: Database, repo_id: str) -> ModelState:
    with database.transaction() as session:
        return ModelState(models.get(session, repo_id).state)
