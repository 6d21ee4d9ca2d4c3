"""Selections: requests for a set of adapters to compose for a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy.orm import Session

from catalog.auth.viewer import Viewer
from catalog.database import Database
from catalog.errors import ExamplesNotKept, TaskNotFinished, TaskNotFound
from catalog.geometry.transforms import Geometry
from catalog.jobs import submissions
from catalog.jobs.quotas import Quota
from catalog.selections import repository as selections
from catalog.selections.strategies import CANDIDATE_POOL, DEFAULT_STRATEGY, Candidates, Strategy
from catalog.tables import Job, Model, Selection, SpaceRow, Task, TaskRun
from catalog.tasks import repository as tasks
from catalog.tasks.nearest import select_preferred
from catalog.tasks.uncertainty import similarities
from catalog.vectors.numeric import normalize
from catalog.vectors.repository import stream as vector_stream


@dataclass(frozen=True)
class SelectionRequest:
    """A request to select `count` adapters by each strategy for a task, given by id or name, on a base (None: the first
    base on which the task is done). `seed` draws the examples that weights are chosen by. At most `budget` weightings
    are tried for each set. Every adapter must have all of the `team_tags`.
    """

    task: str
    base: str | None = None
    count: int = 5
    strategies: Sequence[Strategy] = (DEFAULT_STRATEGY,)
    seed: int = 0
    budget: int = 40
    team_tags: Sequence[str] = ()


SelectionWithJob = tuple[Selection, Job]


def create(database: Database, request: SelectionRequest, quota: Quota, viewer: Viewer) -> SelectionWithJob:
    """Create a selection and enqueue its job. It belongs to the owner of the task or else to the `viewer`; it is public
    if neither has an API key.

    Raises `TaskNotFound`, `TaskNotFinished`, `ExamplesNotKept`, `TooManyJobs`, `TooManyResults`.
    """
    with database.transaction() as session:
        task = tasks.find(session, request.task, viewer)
        if task is None or not tasks.lock(session, task.id):
            raise TaskNotFound(f"There is no task {request.task}. GET /v1/tasks lists the tasks.")
        run = _finished_run(session, task, request.base)
        if not task.keep_examples:
            raise ExamplesNotKept(
                f"The examples of task {request.task} were not kept, and a selection needs them. Create the task again "
                "with `keep_examples` (`deltadex task FILE --keep-examples`)."
            )
        owner = Viewer(task.viewer or viewer.submitter)
        selection = selections.create(
            session,
            task_id=task.id,
            run_id=run.id,
            viewer=owner.submitter,
            base_repo=run.base_repo,
            count=request.count,
            strategies=[str(strategy) for strategy in dict.fromkeys(request.strategies)],
            seed=request.seed,
            budget=request.budget,
            team_tags=list(dict.fromkeys(request.team_tags)),
        )
        model = session.get_one(Model, selection.model_id)
        return selection, submissions.enqueue_exclusive(session, model, run.base_repo, quota, owner)


def get(database: Database, selection_id: int, viewer: Viewer) -> SelectionWithJob:
    """A selection and its job. Raises `SelectionNotFound`."""
    with database.transaction() as session:
        return _with_job(session, selection_id, viewer)


def list_page(database: Database, viewer: Viewer, *, before: int | None, limit: int) -> list[SelectionWithJob]:
    """Up to `limit` selections with an id below `before`, newest first."""
    with database.transaction() as session:
        rows = selections.list_page(session, viewer, before=before, limit=limit)
        jobs = selections.get_jobs(session, rows)
        # a selection that was deleted between the two statements has no job
        return [(selection, jobs[selection.id]) for selection in rows if selection.id in jobs]


def delete(database: Database, selection_id: int, viewer: Viewer) -> SelectionWithJob:
    """Delete a selection and return it; a job that is running stores nothing. Raises `SelectionNotFound`."""
    with database.transaction() as session:
        selection, job = _with_job(session, selection_id, viewer)
        session.expunge_all()
        selections.delete(session, selection)
        return selection, job


def list_candidates(
    session: Session, base_repo: str, space: SpaceRow, vector: np.ndarray, team_tags: Sequence[str] = ()
) -> Candidates:
    """The models of a base that may be selected and have all of the team tags, by raw cosine to a vector (d,) of the
    space.
    """
    selectable = selections.selectable_ids(session, base_repo, team_tags)
    ids, cosines = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for block_ids, vectors in vector_stream.stream(session, space.id, space.dimension, public=True):
        is_selectable = np.isin(block_ids, selectable)
        ids.append(block_ids[is_selectable])
        cosines.append(similarities(Geometry(), vector[None], vectors[is_selectable])[0])
    all_ids, all_cosines = np.concatenate(ids), np.concatenate(cosines)
    order = np.argsort(-all_cosines, kind="stable")
    pool = _unit_vectors(session, space, all_ids[order[:CANDIDATE_POOL]])
    return Candidates(all_ids[order], all_cosines[order], pool)


def _unit_vectors(session: Session, space: SpaceRow, ids: np.ndarray) -> np.ndarray:
    """The unit vectors (m, d) of models, in the order of their ids; zeros for a model that was just deleted."""
    stored_ids, vectors = vector_stream.newest_vectors(session.connection(), space.id, space.dimension, ids)
    by_id = dict(zip(stored_ids.tolist(), vectors, strict=True))
    rows = np.array([by_id.get(model_id, np.zeros(space.dimension)) for model_id in ids.tolist()], np.float32)
    return normalize(rows.reshape(-1, space.dimension))


def _finished_run(session: Session, task: Task, base: str | None) -> TaskRun:
    """The first of a task's runs that has a vector in a serving space. Raises `TaskNotFinished`."""
    on_base = f" on {base}" if base is not None else ""
    reason = f"Task {task.id} has no vector{on_base} yet: GET /v1/tasks/{task.id} shows the state of its jobs."
    for run in task.runs:
        if base not in (None, run.base_repo) or not (measured := tasks.get_vectors(session, run.id)):
            continue
        if select_preferred(measured)[0].serving:
            return run
        reason = (
            f"Task {task.id} was measured under another contract than the serving models{on_base}: create it again "
            "with `keep_examples`, or reindex the models (`deltadex reindex --outdated`)."
        )
    raise TaskNotFinished(reason)


def _with_job(session: Session, selection_id: int, viewer: Viewer) -> SelectionWithJob:
    selection = selections.get(session, selection_id, viewer)
    return selection, selections.get_job(session, selection)
