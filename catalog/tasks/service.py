"""Tasks by example: creating, reading and deleting them, and downloading their adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from catalog.archives import repository as archives
from catalog.archives.service import Download, download
from catalog.auth.viewer import Viewer
from catalog.database import Database
from catalog.errors import ArchiveNotFound, BaseRequired, TaskNotFinished
from catalog.jobs import submissions
from catalog.jobs.quotas import Quota
from catalog.spaces import repository as spaces
from catalog.tables import Job, JobState, Model, Task
from catalog.tasks import repository as tasks
from catalog.tasks.examples import Example
from catalog.tasks.training_config import TrainingConfig

HOLDOUT_SHARE = 0.25  # of the examples, if models are verified
MAX_BASES = 5  # of a task that names no base: a job for each, which trains five adapters and runs exclusively
MAX_NAMED = 20  # bases in a message

TaskWithJobs = tuple[Task, dict[int, Job]]  # the jobs by the ids of the task's runs


@dataclass(frozen=True)
class TaskRequest:
    """A task to create on the base with this repo id, or on every base in the index (at most `MAX_BASES`), the smallest
    first. `verify` is
    the number of models to score on the holdout.
    """

    examples: Sequence[Example]
    base: str | None = None
    name: str | None = None
    verify: int = 0
    seed: int = 0
    keep_examples: bool = False
    keep_adapter: bool = False
    training_config: TrainingConfig = field(default_factory=TrainingConfig)


def create(database: Database, request: TaskRequest, quota: Quota, viewer: Viewer) -> TaskWithJobs:
    """Create a task and enqueue a job for each base. With an API key, the task is visible to its `viewer` alone.

    Raises `NameTaken`, `TooManyJobs`, `TooManyResults`, `ArchiveQuotaExceeded`, `SpaceNotFound` if no model of the base
    is indexed, and `BaseRequired` if no base is named and more than `MAX_BASES` are in the index.
    """
    with database.transaction() as session:
        bases = spaces.list_bases(session, request.base, viewer)
        _check_count([repo for repo, _ in bases])
        if request.keep_adapter:
            quota.check_archives(session)
        task = tasks.create(
            session,
            bases,
            name=request.name,
            viewer=viewer.submitter,
            examples=[asdict(example) for example in request.examples],
            count=len(request.examples),
            keep_examples=request.keep_examples,
            keep_adapter=request.keep_adapter,
            verify=request.verify,
            seed=request.seed,
            training_config=request.training_config.as_dict(),
        )
        for run in task.runs:
            model = session.get_one(Model, run.model_id)
            submissions.enqueue_exclusive(session, model, run.base_repo, quota, viewer)
        return task, tasks.get_jobs(session, [task])


def _check_count(bases: Sequence[str]) -> None:
    if len(bases) > MAX_BASES:
        more = f" and {len(bases) - MAX_NAMED} more" if len(bases) > MAX_NAMED else ""
        raise BaseRequired(
            f"There are fine-tunes of {len(bases):,} bases, and a task runs on at most {MAX_BASES} at once. "
            f"Name one in `base`: {', '.join(bases[:MAX_NAMED])}{more}."
        )


def get(database: Database, task_id: int, viewer: Viewer) -> TaskWithJobs:
    """A task and its jobs. Raises `TaskNotFound`."""
    with database.transaction() as session:
        task = tasks.get(session, task_id, viewer)
        return task, tasks.get_task_jobs(session, task)


def list_page(database: Database, viewer: Viewer, *, before: int | None, limit: int) -> list[TaskWithJobs]:
    """Up to `limit` tasks with an id below `before`, newest first."""
    with database.transaction() as session:
        rows = tasks.list_page(session, viewer, before=before, limit=limit)
        jobs = tasks.get_jobs(session, rows)
        # a task that was deleted between the two statements has no jobs
        return [(task, jobs) for task in rows if all(run.id in jobs for run in task.runs)]


def delete(database: Database, task_id: int, viewer: Viewer) -> TaskWithJobs:
    """Delete a task with its vectors, adapters and selections, and return it; a job that is running stores nothing.
    Raises `TaskNotFound`.
    """
    with database.transaction() as session:
        task = tasks.get(session, task_id, viewer)
        jobs = tasks.get_task_jobs(session, task)
        session.expunge_all()
        tasks.delete(session, task)
        return task, jobs


def get_adapter(database: Database, task_id: int, base: str | None, viewer: Viewer) -> Download:
    """The adapter trained on all examples of a task, on a base or on the first base that has one.

    Raises `TaskNotFound`, `TaskNotFinished`, and `ArchiveNotFound` if the task was created without `keep_adapter`, or
    its adapters are no longer stored.
    """
    with database.transaction() as session:
        task = tasks.get(session, task_id, viewer)
        jobs = tasks.get_jobs(session, [task])
        bases = {run.model_id: run.base_repo for run in task.runs if base in (None, run.base_repo)}
        stored = archives.get_by_models(session, bases)
    if not task.keep_adapter or not bases:
        on_base = f" on {base}" if base else ""
        raise ArchiveNotFound(
            f"Task {task_id} keeps no adapter{on_base}. Create the task again with `keep_adapter` to download one."
        )
    for model_id, base_repo in bases.items():
        if model_id in stored:
            name = f"task-{task.name or task.id}-{base_repo.replace('/', '-')}.zip"
            return download(database, stored[model_id], name)
    if all(job.state == JobState.DONE for job in jobs.values() if job.model_id in bases):
        raise ArchiveNotFound(f"The adapters of task {task_id} are no longer stored. Create the task again.")
    raise TaskNotFinished(f"Task {task_id} has no adapter yet: GET /v1/tasks/{task_id} shows the state of its jobs.")
