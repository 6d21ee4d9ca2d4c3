"""Merges: planned, asked for, looked at, downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sqlalchemy.orm import Session

from catalog.archives import repository as archives
from catalog.archives.service import Download, download
from catalog.auth.viewer import Viewer
from catalog.database import Database
from catalog.errors import ArchiveNotFound, MergeNotDone
from catalog.index.follower import Follower
from catalog.jobs import submissions
from catalog.jobs.quotas import Quota
from catalog.merges import plans
from catalog.merges import repository as merges
from catalog.merges.methods import Blend
from catalog.merges.plans import Plan
from catalog.search import service as search_service
from catalog.search.service import Answer, Options
from catalog.spaces import repository as spaces
from catalog.tables import Job, JobState, Merge, Model, SpaceRow

WithJob = tuple[Merge, Job]


@dataclass(frozen=True)
class Foreseen:
    """A plan, and the models nearest to what it predicts, its parts left out."""

    plan: Plan
    answer: Answer


@dataclass(frozen=True)
class Near:
    """The models nearest to what was predicted of a merge, and to what came out, its parts left out. `made` is None
    where nothing is made yet, or nothing that moves its base.
    """

    predicted: Answer
    made: Answer | None


def plan(database: Database, index: Follower, blend: Blend, options: Options) -> Foreseen:
    """What a merge would be. Raises what `plans.make` and `search.near` raise."""
    with database.transaction() as session:
        made = plans.make(session, blend, options.viewer)
    parts = [part.model.id for part in made.parts]
    answer = search_service.near(database, index, made.space, made.prediction, made.noise_floor, options, parts)
    return Foreseen(made, answer)


def ask(database: Database, blend: Blend, name: str | None, quota: Quota, viewer: Viewer) -> WithJob:
    """Queue a merge's job; it is shown to the `viewer` alone, if that is somebody.

    Raises what `plans.make` raises, `NameTaken`, `TooManyJobs`.
    """
    with database.transaction() as session:
        made = plans.make(session, blend, viewer)
        revision = made.parts[0].revision
        merge = merges.add(
            session,
            made.predicted,
            name=name,
            viewer=viewer.submitter,
            base_repo=revision.base_repo,
            base_sha=revision.base_sha,
            method=blend.method,
            settings=blend.settings,
            parts=[
                {
                    "model_id": part.model.id,
                    "repo_id": part.name,
                    "sha": part.revision.sha,
                    "weight": part.weight,
                    "licence": part.model.licence,
                    "datasets": part.model.datasets,
                }
                for part in made.parts
            ],
            plan=plans.as_dict(made),
        )
        model = session.get_one(Model, merge.model_id)
        return merge, submissions.enqueue_alone(session, model, merge.base_repo, quota, viewer)


def get(database: Database, merge_id: int, viewer: Viewer) -> WithJob:
    """Raises `MergeNotFound`."""
    with database.transaction() as session:
        return _with_job(session, merges.get(session, merge_id, viewer))


def page(database: Database, viewer: Viewer, *, before: int | None, limit: int) -> list[WithJob]:
    """The newest first."""
    with database.transaction() as session:
        found = merges.page(session, viewer, before=before, limit=limit)
        of_merges = merges.jobs_of(session, found)
        # one that was deleted between the two statements has none
        return [(merge, of_merges[merge.id]) for merge in found if merge.id in of_merges]


def delete(database: Database, merge_id: int, viewer: Viewer) -> WithJob:
    """Forget it and what was made; a job that runs stores nothing. Returns what it was. Raises `MergeNotFound`."""
    with database.transaction() as session:
        found = _with_job(session, merges.get(session, merge_id, viewer))
        session.expunge_all()
        merges.remove(session, found[0])
        return found


def adapter(database: Database, merge_id: int, viewer: Viewer) -> Download:
    """Raises `MergeNotFound`, `MergeNotDone`, and `ArchiveNotFound` where it has been taken away."""
    with database.transaction() as session:
        merge, job = _with_job(session, merges.get(session, merge_id, viewer))
        kept = archives.of_models(session, [merge.model_id])
    if merge.model_id in kept:
        return download(database, kept[merge.model_id], f"merge-{merge.name or merge.id}.zip")
    if job.state == JobState.DONE:
        raise ArchiveNotFound(f"The adapter of merge {merge_id} is not here any more: ask for the merge again.")
    if job.state in (JobState.FAILED, JobState.CANCELLED):
        raise MergeNotDone(f"Merge {merge_id} was not made: its job is {job.state}, see GET /v1/merges/{merge_id}.")
    raise MergeNotDone(f"Merge {merge_id} is not made yet: GET /v1/merges/{merge_id} tells how far its job is.")


def near(database: Database, index: Follower, merge_id: int, options: Options) -> Near:
    """In the space of its plan. Raises `MergeNotFound`, `GeometryNotFitted`, `IndexNotLoaded`."""
    with database.transaction() as session:
        merge = merges.get(session, merge_id, options.viewer)
        foreseen, made = (merges.vectors(session, merge_id, predicted=each) for each in (True, False))
    parts = [part["model_id"] for part in merge.parts]
    space, vector = next((each for each in foreseen if each[0].key == merge.plan["space"]), (None, None))
    if space is None or vector is None:
        raise merges.missing(merge_id)  # deleted since it was read
    predicted = search_service.near(database, index, space, vector, merge.plan["noise_floor"], options, parts)
    found = next((each for each in made if each[0].id == space.id and each[1].any()), None)
    return Near(predicted, _near(database, index, *found, options, parts) if found else None)


def _near(
    database: Database, index: Follower, space: SpaceRow, vector: np.ndarray, options: Options, parts: Sequence[int]
) -> Answer:
    with database.transaction() as session:
        floor = spaces.noise_floor(session, space.id)
    return search_service.near(database, index, space, vector, floor, replace(options, space_key=space.key), parts)


def _with_job(session: Session, merge: Merge) -> WithJob:
    return merge, merges.job_of(session, merge)
