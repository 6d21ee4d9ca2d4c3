"""SQL of the retention: the kinds of rows that expire, and what of them has expired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Select, delete, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from catalog.database import NOW, seconds
from catalog.errors import Quarantined
from catalog.jobs.processes import identity
from catalog.tables import (
    ACTIVE,
    ACTIVE_REINDEX,
    RUNNING,
    TERMINAL,
    Alias,
    Archive,
    ArchivePiece,
    AuditEntry,
    Base,
    Job,
    JobEvent,
    JobState,
    Merge,
    MergeVector,
    Model,
    ModelState,
    Reindex,
    Revision,
    Selection,
    Source,
    Task,
    TaskRun,
    TaskVector,
    TeamNote,
    TeamTag,
    Vector,
    Worker,
)

Conditions = Sequence[ColumnElement[bool]]


@dataclass(frozen=True)
class Kind:
    """A kind of rows that expire: those of `table` that meet the conditions `expired`, which are given the time before
    which rows are old. `setting` is the field of the settings with the age in seconds. `since` is the time that the age
    of the oldest row is shown by. The space of `parts` counts as that of the kind.

    `models` are the hidden models of rows (by id), which are deleted with them. `size` is the number of bytes of a row,
    if it is known.
    """

    name: str
    setting: str
    table: type[Base]
    id: InstrumentedAttribute[int]
    since: InstrumentedAttribute[datetime]
    expired: Callable[[ColumnElement[datetime]], Conditions]
    parts: Sequence[type[Base]] = ()
    models: Callable[[Sequence[int]], Select[int]] | None = None
    size: InstrumentedAttribute[int] | None = None
    page_size: int = 500

    def select_expired(self, retention: float) -> Select[int]:
        """The ids of the rows that have expired."""
        return select(self.id).where(*self.expired(NOW - seconds(retention)))


@dataclass(frozen=True)
class KindReport:
    """How many rows of a kind there are, the bytes of their tables, and how many of both would be deleted now.
    `expired_bytes` is an estimate for all kinds but archives.
    """

    kind: Kind
    retention: float
    rows: int
    bytes: int
    oldest: datetime | None
    expired: int
    expired_bytes: int


def report(session: Session, kind: Kind, retention: float) -> KindReport:
    """Count the rows of a kind, and those older than `retention` seconds that would be deleted."""
    rows, oldest = session.execute(select(func.count(), func.min(kind.since)).select_from(kind.table)).one()
    sizes = [func.pg_total_relation_size(table.__tablename__) for table in (kind.table, *kind.parts)]
    size = sum(session.execute(select(*sizes)).one())
    expired = kind.select_expired(retention).subquery()
    count = session.execute(select(func.count()).select_from(expired)).scalar_one()
    expired_bytes = round(size * count / max(rows, 1))
    if kind.size is not None:
        total = select(func.coalesce(func.sum(kind.size), 0)).where(kind.id.in_(select(expired)))
        expired_bytes = int(session.execute(total).scalar_one())
    return KindReport(kind, retention, rows, size, oldest, count, expired_bytes)


def delete_page(session: Session, kind: Kind, retention: float, after: int) -> tuple[int, int | None]:
    """Delete a page of rows that have expired, with ids above `after`. Rows that another transaction changes are left
    out. Returns how many were deleted, and the last id of the page; None if there are no more.
    """
    expired = kind.select_expired(retention)
    page = expired.where(kind.id > after).order_by(kind.id).limit(kind.page_size)
    locked = session.scalars(page.with_for_update(skip_locked=True, of=kind.table)).all()
    # a second statement sees what was committed between the first one's snapshot and the lock, such as a new job
    ids = session.scalars(expired.where(kind.id.in_(locked))).all()
    models = session.scalars(kind.models(ids)).all() if kind.models else []
    session.execute(delete(kind.table).where(kind.id.in_(ids)))
    if models:
        session.execute(delete(Model).where(Model.id.in_(models)))
    return len(ids), locked[-1] if len(locked) == kind.page_size else None


def _jobs_ended(model_id: InstrumentedAttribute[int], old: ColumnElement[datetime]) -> ColumnElement[bool]:
    """Whether all jobs of a model ended before a time."""
    later = Job.state.in_(ACTIVE) | (Job.finished_at >= old)
    return ~select(Job.id).where(Job.model_id == model_id, later).exists()


def _expired_selections(old: ColumnElement[datetime]) -> Conditions:
    return Selection.created_at < old, _jobs_ended(Selection.model_id, old)


def _expired_merges(old: ColumnElement[datetime]) -> Conditions:
    return Merge.created_at < old, _jobs_ended(Merge.model_id, old)


def _expired_tasks(old: ColumnElement[datetime]) -> Conditions:
    """Tasks without selections: a selection depends on its task, and expires before it."""
    later = Job.state.in_(ACTIVE) | (Job.finished_at >= old)
    runs = select(TaskRun.id).join(Job, Job.model_id == TaskRun.model_id).where(TaskRun.task_id == Task.id, later)
    selections = select(Selection.id).where(Selection.task_id == Task.id)
    return Task.created_at < old, ~runs.exists(), ~selections.exists()


def _expired_archives(old: ColumnElement[datetime]) -> Conditions:
    return (Archive.created_at < old,)


_is_quarantined = (Job.state == JobState.FAILED) & (Job.error_code == Quarantined.code)


def _expired_jobs(old: ColumnElement[datetime]) -> Conditions:
    """Ended jobs, but the newest of each model, quarantined ones, and those of a reindex that is active."""
    newer = aliased(Job)
    # not EXISTS, for which the planner would read all jobs for each page
    newest = select(func.max(newer.id)).where(newer.model_id == Job.model_id).scalar_subquery()
    active = select(Reindex.id).where(Reindex.id == Job.reindex_id, Reindex.state.in_(ACTIVE_REINDEX))
    return (
        Job.state.in_(TERMINAL),
        Job.finished_at < old,
        ~func.coalesce(_is_quarantined, False),
        Job.id < newest,
        ~active.exists(),
    )


def _expired_models(old: ColumnElement[datetime]) -> Conditions:
    """Models that were submitted and never measured: the last job of each failed or was cancelled, nobody wrote about
    them, and neither a crawl nor the webhook has seen them. What an admin removed stays, and so does what is
    quarantined.
    """
    uses = (Revision, Vector, TeamTag, TeamNote, Alias)
    used = [select(table.model_id).where(table.model_id == Model.id).exists() for table in uses]
    quarantined = select(Job.id).where(Job.model_id == Model.id, _is_quarantined)
    return (
        Model.source.in_((Source.HUB, Source.FOLDER)),
        Model.state.in_((ModelState.PENDING, ModelState.FAILED)),
        Model.created_at < old,
        Model.removed_at.is_(None),
        Model.hub_sha.is_(None),
        _jobs_ended(Model.id, old),
        *(~condition for condition in (*used, quarantined.exists())),
    )


def _expired_workers(old: ColumnElement[datetime]) -> Conditions:
    """Workers without a heartbeat, and without jobs that the recovery has yet to requeue. The process that sweeps may
    just have woken up.
    """
    running = select(Job.id).where(Job.worker_id == Worker.id, Job.state.in_(RUNNING))
    return Worker.heartbeat_at < old, Worker.process.is_distinct_from(identity()), ~running.exists()


# each kind before those that it depends on
KINDS = (
    Kind(
        "selections", "result_retention", Selection, Selection.id, Selection.created_at, _expired_selections,
        models=lambda ids: select(Selection.model_id).where(Selection.id.in_(ids)), page_size=20,
    ),
    Kind(
        "merges", "result_retention", Merge, Merge.id, Merge.created_at, _expired_merges, parts=(MergeVector,),
        models=lambda ids: select(Merge.model_id).where(Merge.id.in_(ids)), page_size=20,
    ),
    Kind(
        "tasks", "result_retention", Task, Task.id, Task.created_at, _expired_tasks, parts=(TaskRun, TaskVector),
        models=lambda ids: select(TaskRun.model_id).where(TaskRun.task_id.in_(ids)), page_size=20,
    ),
    Kind(
        "archives", "archive_retention", Archive, Archive.model_id, Archive.created_at, _expired_archives,
        parts=(ArchivePiece,), size=Archive.size, page_size=2,
    ),
    Kind("jobs", "job_retention", Job, Job.id, Job.created_at, _expired_jobs),
    Kind("unmeasured_models", "job_retention", Model, Model.id, Model.created_at, _expired_models, page_size=100),
    # each of them may have run many jobs, whose rows change
    Kind("workers", "worker_retention", Worker, Worker.id, Worker.started_at, _expired_workers, page_size=10),
    Kind("job_events", "event_retention", JobEvent, JobEvent.id, JobEvent.at, lambda old: (JobEvent.at < old,)),
    Kind(
        "audit_entries", "audit_retention", AuditEntry, AuditEntry.id, AuditEntry.at,
        lambda old: (AuditEntry.at < old,),
    ),
)  # fmt: skip
