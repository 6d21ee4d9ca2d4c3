"""Tasks by example: asking for the models that fit some examples, and the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from catalog.archives import repository as archives
from catalog.archives.service import Download, download
from catalog.auth.viewer import Viewer
from catalog.database import Database
from catalog.errors import ArchiveNotFound, TaskNotDone
from catalog.jobs import submissions
from catalog.jobs.quotas import Quota
from catalog.spaces import repository as spaces
from catalog.tables import Job, Model, Task
from catalog.tasks import repository as tasks
from catalog.tasks.examples import Example
from catalog.tasks.training_config import Recipe

HELD_BACK = 0.25  # of the examples, where models are to be verified


@dataclass(frozen=True)
class Question:
    """`base` is a repo id; None asks on every base in the index, the smallest first. `verify` models are scored on
    examples that are held back.
    """

    examples: Sequence[Example]
    base: str | None = None
    name: str | None = None
    verify: int = 0
    seed: int = 0
    keep_examples: bool = False
    keep_adapter: bool = False
    recipe: Recipe = field(default_factory=Recipe)


WithJobs = tuple[Task, dict[int, Job]]  # a task, and the job of each of its runs


def ask(database: Database, question: Question, quota: Quota, viewer: Viewer) -> WithJobs:
    """Queue a task's jobs, one for each base; it is shown to the `viewer` alone, if that is somebody.

    Raises `NameTaken`, `SpaceNotFound` where nothing of that base is indexed, `TooManyJobs`.
    """
    with database.transaction() as session:
        task = tasks.add(
            session,
            spaces.bases(session, question.base, viewer),
            name=question.name,
            viewer=viewer.submitter,
            examples=[asdict(example) for example in question.examples],
            count=len(question.examples),
            keep_examples=question.keep_examples,
            keep_adapter=question.keep_adapter,
            verify=question.verify,
            seed=question.seed,
            recipe=question.recipe.as_dict(),
        )
        for run in task.runs:
            model = session.get_one(Model, run.model_id)
            submissions.enqueue_alone(session, model, run.base_repo, quota, viewer)
        return task, tasks.jobs_of(session, [task])


def get(database: Database, task_id: int, viewer: Viewer) -> WithJobs:
    """Raises `TaskNotFound`."""
    with database.transaction() as session:
        task = tasks.get(session, task_id, viewer)
        return task, tasks.jobs_of_one(session, task)


def page(database: Database, viewer: Viewer, *, before: int | None, limit: int) -> list[WithJobs]:
    """The newest first."""
    with database.transaction() as session:
        found = tasks.page(session, viewer, before=before, limit=limit)
        of_runs = tasks.jobs_of(session, found)
        there = [task for task in found if all(run.id in of_runs for run in task.runs)]  # one may be deleted just now
        return [(task, of_runs) for task in there]


def delete(database: Database, task_id: int, viewer: Viewer) -> WithJobs:
    """Forget it, and all that was made of it; a job that runs stores nothing. Returns what it was. Raises
    `TaskNotFound`.
    """
    with database.transaction() as session:
        task = tasks.get(session, task_id, viewer)
        of_runs = tasks.jobs_of_one(session, task)
        session.expunge_all()
        tasks.remove(session, task)
        return task, of_runs


def adapter(database: Database, task_id: int, base: str | None, viewer: Viewer) -> Download:
    """The adapter that was trained on all examples of a task, on that base or on the first that has one.

    Raises `TaskNotFound`, `TaskNotDone`, and `ArchiveNotFound` where none was to be kept.
    """
    with database.transaction() as session:
        task = tasks.get(session, task_id, viewer)
        runs = [run for run in task.runs if base in (None, run.base_repo)]
        kept = archives.of_models(session, [run.model_id for run in runs])
    if not task.keep_adapter or not runs:
        raise ArchiveNotFound(
            f"No adapter of task {task_id} is kept{f' on {base}' if base else ''}: ask it with `keep_adapter`."
        )
    found = next((run for run in runs if run.model_id in kept), None)
    if found is None:
        raise TaskNotDone(f"Task {task_id} has no adapter yet: GET /v1/tasks/{task_id} tells how far its jobs are.")
    name = f"task-{task.name or task.id}-{found.base_repo.replace('/', '-')}.zip"
    return download(database, kept[found.model_id], name)
