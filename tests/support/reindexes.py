"""Reindexes without workers: steps are taken here, and vectors are stored as a worker would have."""

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
from catalog.reindexes.service import Selection
from catalog.spaces import repository as spaces
from catalog.spaces.contract import Space
from catalog.tables import Job, JobState, ModelState, Reindex, ReindexState
from catalog.vectors.repository import feed
from tests.support.catalog import SPACE

EXACT = 2**20  # bytes
EVERYTHING = Selection(everything=True)


def contract(space: Space = SPACE) -> list[Space]:
    """What a worker of that space measures, the base left open."""
    return [dataclasses.replace(space, base_repo=None, base_sha=None)]


def begin(database: Database, selection: Selection = EVERYTHING, space: Space = SPACE) -> int:
    """A reindex whose jobs are all made; returns its number."""
    reindex_id = reindex_service.start(database, selection).id
    while reindex_service.queue(database, reindex_id, contract(space)):
        pass
    return reindex_id


def look(database: Database, reindex_id: int) -> Reindex:
    with database.transaction() as session:
        return reindexes.get(session, reindex_id)


def its_jobs(database: Database, reindex_id: int) -> list[Job]:
    with database.transaction() as session:
        return list(session.scalars(select(Job).where(Job.reindex_id == reindex_id).order_by(Job.id)))


def end(database: Database, job: Job, state: JobState = JobState.DONE, code: str | None = None) -> None:
    with database.transaction() as session:
        row = jobs.get(session, job.id)
        row.state, row.error_code = state, code


def measure(
    database: Database, job: Job, vector: Sequence[float], space: Space = SPACE, *, no_shift: bool = False
) -> None:
    """End a job of a reindex with what it measured."""
    values = np.asarray(vector, np.float32)
    with database.transaction() as session:
        feed.lock_feed(session)
        revision = models.current_revision(session, job.model_id)
        row = spaces.ensure(session, dataclasses.replace(space, edition=job.reindex_id), values.size)
        feed.store(session, row, revision, values, norm=float(np.linalg.norm(values)), no_shift=no_shift)
        jobs.get(session, job.id).state = JobState.DONE


def finish(database: Database, reindex_id: int) -> Reindex:
    """Go on until it is ready."""
    assert reindex_service.await_jobs(database, reindex_id)
    while reindex_service.carry(database, reindex_id):
        pass
    if look(database, reindex_id).state == ReindexState.RUNNING:
        assert readiness.build(database, reindex_id, EXACT)
    return look(database, reindex_id)


def found(database: Database, space: Space) -> dict[str, list[float]]:
    """The models of a space by name, with their newest vectors."""
    with database.transaction() as session:
        row = spaces.get(session, space.key)
        newest = {change.model_id: change.vector for change in feed.changes_of(session, {row.id: 0}, 10_000)}
        named = models.by_ids(session, newest)
        return {named[each].repo_id: vector.tolist() for each, vector in newest.items() if vector is not None}


def serving_key(database: Database, space: Space = SPACE) -> str:
    with database.transaction() as session:
        return spaces.serving(session, space).key


def state_of(database: Database, repo_id: str) -> ModelState:
    with database.transaction() as session:
        return ModelState(models.get(session, repo_id).state)
