"""Selections: asking which set of modules to compose for a task, and by which way of choosing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy.orm import Session

from catalog.auth.viewer import Viewer
from catalog.database import Database
from catalog.errors import ExamplesNotKept, TaskNotDone, TaskNotFound
from catalog.geometry.transforms import Geometry
from catalog.jobs import submissions
from catalog.jobs.quotas import Quota
from catalog.selections import repository as selections
from catalog.selections.strategies import CROWD, Arm, Candidates
from catalog.tables import Job, Model, Selection, SpaceRow, Task, TaskRun
from catalog.tasks import repository as tasks
from catalog.tasks.nearest import leading
from catalog.tasks.uncertainty import similarities
from catalog.vectors.numeric import unit_rows
from catalog.vectors.repository import stream as vector_stream


@dataclass(frozen=True)
class Wish:
    """Of the task of that number or name, on a base (None: the first on which it is done): `count` modules by each of
    the arms, `seeds` times, `budget` weights tried for each set.
    """

    task: str
    base: str | None = None
    count: int = 5
    arms: Sequence[Arm] = tuple(Arm)
    seeds: int = 3
    seed: int = 0
    budget: int = 40


WithJob = tuple[Selection, Job]


def ask(database: Database, wish: Wish, quota: Quota, viewer: Viewer) -> WithJob:
    """Queue a selection. It is shown to whom the task is, or to the `viewer` alone, if that is somebody.

    Raises `TaskNotFound`, `TaskNotDone`, `ExamplesNotKept`, `TooManyJobs`.
    """
    with database.transaction() as session:
        task = tasks.find(session, wish.task, viewer)
        if task is None or not tasks.hold(session, task.id):
            raise TaskNotFound(f"There is no task {wish.task}. GET /v1/tasks lists them.")
        run = _done(session, task, wish.base)
        if not task.keep_examples:
            raise ExamplesNotKept(
                f"The examples of task {wish.task} are not kept, so no set can be tried on them: ask the task again "
                "with `keep_examples` (`deltadex task FILE --keep`)."
            )
        owner = Viewer(task.viewer or viewer.submitter)
        selection = selections.add(
            session,
            task_id=task.id,
            run_id=run.id,
            viewer=owner.submitter,
            base_repo=run.base_repo,
            count=wish.count,
            arms=[str(arm) for arm in dict.fromkeys(wish.arms)],
            seeds=wish.seeds,
            seed=wish.seed,
            budget=wish.budget,
        )
        model = session.get_one(Model, selection.model_id)
        return selection, submissions.enqueue_alone(session, model, run.base_repo, quota, owner)


def get(database: Database, selection_id: int, viewer: Viewer) -> WithJob:
    """Raises `SelectionNotFound`."""
    with database.transaction() as session:
        return _with_job(session, selection_id, viewer)


def page(database: Database, viewer: Viewer, *, before: int | None, limit: int) -> list[WithJob]:
    """The newest first."""
    with database.transaction() as session:
        found = selections.page(session, viewer, before=before, limit=limit)
        of_them = selections.jobs_of(session, found)
        # one that was deleted between the two statements has none
        return [(selection, of_them[selection.id]) for selection in found if selection.id in of_them]


def delete(database: Database, selection_id: int, viewer: Viewer) -> WithJob:
    """Forget it; a job that runs stores nothing. Returns what it was. Raises `SelectionNotFound`."""
    with database.transaction() as session:
        found = _with_job(session, selection_id, viewer)
        session.expunge_all()
        selections.remove(session, found[0])
        return found


def candidates(session: Session, base_repo: str, space: SpaceRow, vector: np.ndarray) -> Candidates:
    """The models of a base that may be chosen, by raw cosine to a vector (d,) of the space."""
    choosable = selections.choosable(session, base_repo)
    ids, cosines = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for some, vectors in vector_stream.stream(session, space.id, space.dimension, public=True):
        mine = np.isin(some, choosable)
        ids.append(some[mine])
        cosines.append(similarities(Geometry(), vector[None], vectors[mine])[0])
    all_ids, all_cosines = np.concatenate(ids), np.concatenate(cosines)
    order = np.argsort(-all_cosines, kind="stable")
    near = _unit_vectors(session, space, all_ids[order[:CROWD]])
    return Candidates(all_ids[order], all_cosines[order], near)


def _unit_vectors(session: Session, space: SpaceRow, ids: np.ndarray) -> np.ndarray:
    """Normalised vectors (m, d) of models, in their order; zeros for one that was removed just now."""
    found, vectors = vector_stream.newest_of(session.connection(), space.id, space.dimension, ids)
    of_models = dict(zip(found.tolist(), vectors, strict=True))
    some = np.array([of_models.get(model_id, np.zeros(space.dimension)) for model_id in ids.tolist()], np.float32)
    return unit_rows(some.reshape(-1, space.dimension))


def _done(session: Session, task: Task, base: str | None) -> TaskRun:
    """The first of a task's runs that has a vector in a space that serves. Raises `TaskNotDone`."""
    on_it = f" on {base}" if base is not None else ""
    missing = f"Task {task.id} has no vector{on_it}: GET /v1/tasks/{task.id} tells how far its jobs are."
    for run in task.runs:
        if base not in (None, run.base_repo) or not (measured := tasks.vectors(session, run.id)):
            continue
        if leading(measured)[0].serving:
            return run
        missing = (
            f"Task {task.id} was measured under another contract than the models that answer{on_it}: ask it again with "
            "`keep_examples`, or reindex these (`deltadex reindex --outdated`)."
        )
    raise TaskNotDone(missing)


def _with_job(session: Session, selection_id: int, viewer: Viewer) -> WithJob:
    selection = selections.get(session, selection_id, viewer)
    return selection, selections.job_of(session, selection)
