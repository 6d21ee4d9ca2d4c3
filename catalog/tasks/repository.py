"""Tasks by example, their runs on bases, and their vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import delete as sql_delete
from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog.auth.repository import owned_rows
from catalog.auth.viewer import ADMIN, Viewer
from catalog.database import seconds
from catalog.errors import NameTaken, TaskNotFound
from catalog.models.repository import models
from catalog.tables import ACTIVE, Job, JobState, Model, Selection, Source, SpaceRow, Task, TaskRun, TaskVector

RETRY_WINDOW = 7 * 86_400  # seconds after which the examples of a failed or cancelled job are deleted


def create(session: Session, bases: Sequence[tuple[str, str]], **values: Any) -> Task:
    """Create a task with a run on each base (repo, sha), in the order of `bases`. Raises `NameTaken`."""
    statement = insert(Task).values(**values).on_conflict_do_nothing().returning(Task)
    task = session.scalars(statement).one_or_none()
    if task is None:
        raise NameTaken(f"A task named {values['name']!r} already exists. Choose another name, or delete that task.")
    for repo, sha in bases:
        model = models.get_or_create(session, f"task:{task.id}@{repo}", Source.EXAMPLES, private=True)
        session.add(TaskRun(task_id=task.id, model_id=model.id, base_repo=repo, base_sha=sha))
        session.flush()
    session.refresh(task)
    return task


def get(session: Session, task_id: int, viewer: Viewer = ADMIN) -> Task:
    """The task with this id. Raises `TaskNotFound`, also if the viewer may not see it."""
    task = session.get(Task, task_id, populate_existing=True)
    if task is None or not viewer.can_see(task.viewer):
        raise _not_found(task_id)
    return task


def find(session: Session, name: str, viewer: Viewer) -> Task | None:
    """The task with this id or name. The viewer's own task takes precedence over a public one."""
    return owned_rows.find_by_id_or_name(session, Task, name, viewer)


def lock(session: Session, task_id: int) -> bool:
    """Keep a task from being deleted until the transaction ends. Returns False if it has been deleted already."""
    statement = select(Task.id).where(Task.id == task_id).with_for_update(read=True, key_share=True)
    return session.execute(statement).scalar_one_or_none() is not None


def list_names(session: Session, viewer: Viewer, limit: int) -> list[str]:
    """The names of the newest tasks that have one."""
    return owned_rows.list_names(session, Task, viewer, limit)


def get_by_model(session: Session, model_id: int) -> tuple[Task, TaskRun]:
    """The task run whose job belongs to this hidden model, and its task."""
    run = session.scalars(select(TaskRun).where(TaskRun.model_id == model_id)).one()
    return get(session, run.task_id), run


def list_page(session: Session, viewer: Viewer, *, before: int | None, limit: int) -> list[Task]:
    """Up to `limit` tasks with an id below `before`, newest first."""
    return owned_rows.list_page(session, Task, viewer, before=before, limit=limit)


def get_jobs(session: Session, tasks: Sequence[Task]) -> dict[int, Job]:
    """The jobs of tasks, by the ids of their runs."""
    return owned_rows.jobs_by_owner(session, {run.model_id: run.id for task in tasks for run in task.runs})


def get_task_jobs(session: Session, task: Task) -> dict[int, Job]:
    """The jobs of a task, by the ids of its runs. Raises `TaskNotFound` if it has been deleted since it was read."""
    jobs = get_jobs(session, [task])
    if len(jobs) < len(task.runs):
        raise _not_found(task.id)
    return jobs


def store(session: Session, run_id: int, vectors: Mapping[int, np.ndarray], metrics: dict[str, Any]) -> None:
    """Store the result of a run, replacing that of an earlier attempt. `vectors` (1 + h, d) are by space id: first that
    of all examples, then those of halves.
    """
    session.execute(sql_delete(TaskVector).where(TaskVector.run_id == run_id))
    for space_id, samples in vectors.items():
        for sample, vector in enumerate(samples):
            values = {"dimension": vector.size, "data": vector.astype("<f4").tobytes()}
            session.execute(insert(TaskVector).values(run_id=run_id, space_id=space_id, sample=sample, **values))
    session.execute(update(TaskRun).where(TaskRun.id == run_id).values(metrics=metrics))


def get_vectors(session: Session, run_id: int) -> list[tuple[SpaceRow, np.ndarray]]:
    """A run's vectors (1 + h, d) in each space that it was measured in."""
    statement = (
        select(SpaceRow, TaskVector)
        .join(SpaceRow, SpaceRow.id == TaskVector.space_id)
        .where(TaskVector.run_id == run_id)
        .order_by(TaskVector.space_id, TaskVector.sample)
    )
    samples: dict[int, tuple[SpaceRow, list[np.ndarray]]] = {}
    for space, row in session.execute(statement):
        samples.setdefault(space.id, (space, []))[1].append(row.vector)
    return [(space, np.stack(vectors)) for space, vectors in samples.values()]


def delete_examples(session: Session) -> int:
    """Delete the examples of tasks that no longer need them, unless they have `keep_examples`. Examples are needed
    while a job of the task is queued or running, and for `RETRY_WINDOW` seconds after one failed or was cancelled, so
    that it can be retried. Returns the number of tasks.
    """
    retriable = Job.state.in_((JobState.FAILED, JobState.CANCELLED)) & (
        Job.finished_at > func.now() - seconds(RETRY_WINDOW)
    )
    needed = select(Job.id).join(TaskRun, TaskRun.model_id == Job.model_id).where(
        TaskRun.task_id == Task.id, or_(Job.state.in_(ACTIVE), retriable)
    )  # fmt: skip
    unneeded = Task.examples.is_not(None) & ~Task.keep_examples & ~needed.exists()
    return len(session.execute(update(Task).where(unneeded).values(examples=None).returning(Task.id)).all())


def delete(session: Session, task: Task) -> None:
    """Delete a task with its runs and selections, and their hidden models, jobs and vectors."""
    session.execute(select(Task.id).where(Task.id == task.id).with_for_update())  # no selection is created now
    model_ids = [run.model_id for run in task.runs]
    model_ids += session.scalars(select(Selection.model_id).where(Selection.task_id == task.id))
    session.execute(sql_delete(Task).where(Task.id == task.id))
    session.execute(sql_delete(Model).where(Model.id.in_(model_ids)))


def _not_found(task_id: int) -> TaskNotFound:
    return TaskNotFound(f"There is no task {task_id}. GET /v1/tasks lists the tasks.")
