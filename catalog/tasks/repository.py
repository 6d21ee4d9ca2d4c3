"""Tasks by example, their runs on bases, and their vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog import repository
from catalog.auth.viewer import EVERYTHING, Viewer
from catalog.database import seconds
from catalog.errors import NameTaken, TaskNotFound
from catalog.models.repository import models
from catalog.repository import by_id_or_name, newest_first, owned_by
from catalog.tables import ACTIVE, Job, JobState, Model, Selection, Source, SpaceRow, Task, TaskRun, TaskVector

RETRIABLE = 7 * 86_400  # seconds for which a job that failed or was cancelled can be retried with its task's examples


def add(session: Session, bases: Sequence[tuple[str, str]], **values: Any) -> Task:
    """A task with a run for each base (repo, sha), in their order. Raises `NameTaken`."""
    statement = insert(Task).values(**values).on_conflict_do_nothing().returning(Task)
    task = session.scalars(statement).one_or_none()
    if task is None:
        raise NameTaken(f"There is a task {values['name']!r} already: choose another name, or delete that one.")
    for repo, sha in bases:
        model = models.ensure(session, f"task:{task.id}@{repo}", Source.EXAMPLES, private=True)
        session.add(TaskRun(task_id=task.id, model_id=model.id, base_repo=repo, base_sha=sha))
        session.flush()
    session.refresh(task)
    return task


def get(session: Session, task_id: int, viewer: Viewer = EVERYTHING) -> Task:
    """Raises `TaskNotFound`, also where the viewer may not see it."""
    task = session.get(Task, task_id, populate_existing=True)
    if task is None or not viewer.sees(task.viewer):
        raise _missing(task_id)
    return task


def find(session: Session, name: str, viewer: Viewer) -> Task | None:
    """By number or name: the viewer's own of that name, or else everybody's."""
    return by_id_or_name(session, Task, name, viewer)


def hold(session: Session, task_id: int) -> bool:
    """Keep a task from being deleted until the transaction ends; False where it has been."""
    statement = select(Task.id).where(Task.id == task_id).with_for_update(read=True, key_share=True)
    return session.execute(statement).scalar_one_or_none() is not None


def names(session: Session, viewer: Viewer, limit: int) -> list[str]:
    """Of the newest tasks that have one."""
    named = select(Task.name).where(Task.name.is_not(None), owned_by(Task.viewer, viewer)).order_by(Task.id.desc())
    return [name for name in session.scalars(named.limit(limit)) if name is not None]


def run_of(session: Session, model_id: int) -> tuple[Task, TaskRun]:
    """The run that a job's model stands for, and its task."""
    found = session.scalars(select(TaskRun).where(TaskRun.model_id == model_id)).one()
    return get(session, found.task_id), found


def page(session: Session, viewer: Viewer, *, before: int | None, limit: int) -> list[Task]:
    """Up to `limit` tasks with an id below `before`, newest first."""
    statement = select(Task).where(owned_by(Task.viewer, viewer))
    return list(session.scalars(newest_first(statement, Task.id, before, limit)))


def jobs_of(session: Session, found: Sequence[Task]) -> dict[int, Job]:
    """The job of each of their runs, by the run."""
    return repository.jobs_of(session, {run.model_id: run.id for task in found for run in task.runs})


def jobs_of_one(session: Session, task: Task) -> dict[int, Job]:
    """The job of each run of a task, by the run. Raises `TaskNotFound` where it has been deleted since it was read."""
    found = jobs_of(session, [task])
    if len(found) < len(task.runs):
        raise _missing(task.id)
    return found


def store(
    session: Session,
    run_id: int,
    vectors: Mapping[int, np.ndarray],
    figures: dict[str, Any],
) -> None:
    """What came out of a run: by space its vectors (1 + h, d), of all examples and of halves of them."""
    session.execute(delete(TaskVector).where(TaskVector.run_id == run_id))
    for space_id, measured in vectors.items():
        for number, vector in enumerate(measured):
            values = {"dimension": vector.size, "data": vector.astype("<f4").tobytes()}
            session.execute(insert(TaskVector).values(run_id=run_id, space_id=space_id, part=number, **values))
    session.execute(update(TaskRun).where(TaskRun.id == run_id).values(figures=figures))


def vectors(session: Session, run_id: int) -> list[tuple[SpaceRow, np.ndarray]]:
    """A run's vectors (1 + h, d) in each of its spaces."""
    statement = (
        select(SpaceRow, TaskVector)
        .join(SpaceRow, SpaceRow.id == TaskVector.space_id)
        .where(TaskVector.run_id == run_id)
        .order_by(TaskVector.space_id, TaskVector.part)
    )
    found: dict[int, tuple[SpaceRow, list[np.ndarray]]] = {}
    for space, vector in session.execute(statement):
        found.setdefault(space.id, (space, []))[1].append(vector.numbers)
    return [(space, np.stack(measured)) for space, measured in found.values()]


def forget_examples(session: Session) -> int:
    """Drop the examples of tasks that need them no more, unless they are to be kept: no job waits or runs, and none
    failed or was cancelled in the last `RETRIABLE` seconds, so that it may be retried. Returns of how many.
    """
    retriable = Job.state.in_((JobState.FAILED, JobState.CANCELLED)) & (
        Job.finished_at > func.now() - seconds(RETRIABLE)
    )
    needed = select(Job.id).join(TaskRun, TaskRun.model_id == Job.model_id).where(
        TaskRun.task_id == Task.id, or_(Job.state.in_(ACTIVE), retriable)
    )  # fmt: skip
    over = Task.examples.is_not(None) & ~Task.keep_examples & ~needed.exists()
    return len(session.execute(update(Task).where(over).values(examples=None).returning(Task.id)).all())


def remove(session: Session, task: Task) -> None:
    """With its runs and selections, and their models, jobs and vectors."""
    session.execute(select(Task.id).where(Task.id == task.id).with_for_update())  # no selection comes meanwhile
    stand_ins = [run.model_id for run in task.runs]
    stand_ins += session.scalars(select(Selection.model_id).where(Selection.task_id == task.id))
    session.execute(delete(Task).where(Task.id == task.id))
    session.execute(delete(Model).where(Model.id.in_(stand_ins)))


def _missing(task_id: int) -> TaskNotFound:
    return TaskNotFound(f"There is no task {task_id}. GET /v1/tasks lists them.")
