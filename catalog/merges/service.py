"""Merges: planning, creating, reading and deleting them, their neighbors, and downloading their adapters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sqlalchemy.orm import Session

from catalog.archives import repository as archives
from catalog.archives.service import Download, download
from catalog.auth.viewer import Viewer
from catalog.database import Database
from catalog.errors import ArchiveNotFound, MergeNotFinished
from catalog.index.follower import IndexFollower
from catalog.jobs import submissions
from catalog.jobs.quotas import Quota
from catalog.merges import plans
from catalog.merges import repository as merges
from catalog.merges.methods import MergeSpec
from catalog.merges.plans import Plan
from catalog.search import service as search_service
from catalog.search.service import SearchAnswer, SearchOptions
from catalog.spaces import repository as spaces
from catalog.tables import Job, JobState, Merge, Model

MergeWithJob = tuple[Merge, Job]


@dataclass(frozen=True)
class Preview:
    """A plan, and the models nearest to its prediction, without the parts."""

    plan: Plan
    answer: SearchAnswer


@dataclass(frozen=True)
class MergeNeighbors:
    """The models nearest to the prediction of a merge and to its measured vector, without the parts. `measured` is None
    until the merge is measured, and if its vector is zero.
    """

    predicted: SearchAnswer
    measured: SearchAnswer | None


def preview(database: Database, index: IndexFollower, spec: MergeSpec, options: SearchOptions) -> Preview:
    """Plan a merge without running it. Raises what `plans.create` and `search.service.by_space_vector` raise."""
    with database.transaction() as session:
        plan = plans.create(session, spec, options.viewer)
    part_ids = [part.model.id for part in plan.parts]
    answer = search_service.by_space_vector(
        database, index, plan.space, plan.prediction, plan.noise_floor, options, part_ids
    )
    return Preview(plan, answer)


def create(database: Database, spec: MergeSpec, name: str | None, quota: Quota, viewer: Viewer) -> MergeWithJob:
    """Create a merge and enqueue its job. With an API key, the merge is visible to its `viewer` alone.

    Raises what `plans.create` raises, `NameTaken`, `TooManyJobs`, `TooManyResults`, `ArchiveQuotaExceeded`.
    """
    with database.transaction() as session:
        quota.check_archives(session)
        plan = plans.create(session, spec, viewer)
        revision = plan.parts[0].revision
        merge = merges.create(
            session,
            plan.predictions,
            name=name,
            viewer=viewer.submitter,
            base_repo=revision.base_repo,
            base_sha=revision.base_sha,
            method=spec.method,
            settings=spec.settings,
            parts=[
                {
                    "model_id": part.model.id,
                    "repo_id": part.name,
                    "sha": part.revision.sha,
                    "weight": part.weight,
                    "license": part.model.license,
                    "datasets": part.model.datasets,
                }
                for part in plan.parts
            ],
            plan=plans.as_dict(plan),
        )
        model = session.get_one(Model, merge.model_id)
        return merge, submissions.enqueue_exclusive(session, model, merge.base_repo, quota, viewer)


def get(database: Database, merge_id: int, viewer: Viewer) -> MergeWithJob:
    """A merge and its job. Raises `MergeNotFound`."""
    with database.transaction() as session:
        return _with_job(session, merge_id, viewer)


def list_page(database: Database, viewer: Viewer, *, before: int | None, limit: int) -> list[MergeWithJob]:
    """Up to `limit` merges with an id below `before`, newest first."""
    with database.transaction() as session:
        rows = merges.list_page(session, viewer, before=before, limit=limit)
        jobs = merges.get_jobs(session, rows)
        # a merge that was deleted between the two statements has no job
        return [(merge, jobs[merge.id]) for merge in rows if merge.id in jobs]


def delete(database: Database, merge_id: int, viewer: Viewer) -> MergeWithJob:
    """Delete a merge and its adapter, and return it; a job that is running stores nothing. Raises `MergeNotFound`."""
    with database.transaction() as session:
        merge, job = _with_job(session, merge_id, viewer)
        session.expunge_all()
        merges.delete(session, merge)
        return merge, job


def get_adapter(database: Database, merge_id: int, viewer: Viewer) -> Download:
    """The adapter that a merge produced.

    Raises `MergeNotFound`, `MergeNotFinished`, and `ArchiveNotFound` if the adapter is no longer stored.
    """
    with database.transaction() as session:
        merge, job = _with_job(session, merge_id, viewer)
        archive = archives.get_by_models(session, [merge.model_id]).get(merge.model_id)
    if archive is not None:
        return download(database, archive, f"merge-{merge.name or merge.id}.zip")
    if job.state == JobState.DONE:
        raise ArchiveNotFound(f"The adapter of merge {merge_id} is no longer stored. Create the merge again.")
    if job.state in (JobState.FAILED, JobState.CANCELLED):
        raise MergeNotFinished(
            f"Merge {merge_id} has no adapter, since its job is {job.state}: see GET /v1/merges/{merge_id}."
        )
    raise MergeNotFinished(
        f"Merge {merge_id} has no adapter yet: GET /v1/merges/{merge_id} shows the state of its job."
    )


def get_neighbors(database: Database, index: IndexFollower, merge_id: int, options: SearchOptions) -> MergeNeighbors:
    """The neighbors of a merge in the space of its plan. Raises `MergeNotFound`, `IndexNotLoaded`."""
    with database.transaction() as session:
        merge = merges.get(session, merge_id, options.viewer)
        predictions = {
            space.key: (space, vector) for space, vector in merges.get_vectors(session, merge_id, predicted=True)
        }
        measurements = {space.key: vector for space, vector in merges.get_vectors(session, merge_id, predicted=False)}
        key = merge.plan["space"]
        if key not in predictions:
            raise merges.not_found(merge_id)  # deleted since it was read
        space, prediction = predictions[key]
        noise_floor = spaces.max_noise_floor(session, space.id)
    part_ids = [part["model_id"] for part in merge.parts]

    def search(vector: np.ndarray, noise_floor: float | None) -> SearchAnswer:
        return search_service.by_space_vector(database, index, space, vector, noise_floor, options, part_ids)

    measurement = measurements.get(key)
    measured = search(measurement, noise_floor) if measurement is not None and measurement.any() else None
    return MergeNeighbors(search(prediction, merge.plan["noise_floor"]), measured)


def _with_job(session: Session, merge_id: int, viewer: Viewer) -> MergeWithJob:
    merge = merges.get(session, merge_id, viewer)
    return merge, merges.get_job(session, merge)
