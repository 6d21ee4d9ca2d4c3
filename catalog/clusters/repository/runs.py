"""Clusterings of spaces: asked for, at work, finished."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog import locks
from catalog.error_record import ErrorRecord
from catalog.errors import RunNotFound
from catalog.locks import Lock
from catalog.repository import newest_first
from catalog.spaces.contract import PREFERRED
from catalog.spaces.repository import preference
from catalog.tables import ClusterRun, RunState, SpaceRow

_ACTIVE = (RunState.QUEUED, RunState.RUNNING)


def ask(
    session: Session, space_id: int, *, algorithm: str, parameters: dict[str, Any], asked_by: str
) -> tuple[ClusterRun, bool]:
    """The run that waits or works on that space, made if there is none; and whether it was made."""
    values = {"space_id": space_id, "algorithm": algorithm, "parameters": parameters, "asked_by": asked_by}
    statement = insert(ClusterRun).values(values).on_conflict_do_nothing().returning(ClusterRun.id)
    while True:
        if (made := session.execute(statement).scalar_one_or_none()) is not None:
            return get(session, made), True
        active = select(ClusterRun).where(ClusterRun.space_id == space_id, ClusterRun.state.in_(_ACTIVE))
        if (run := session.scalars(active).one_or_none()) is not None:
            return run, False


def get(session: Session, run_id: int) -> ClusterRun:
    """Raises `RunNotFound`."""
    run = session.get(ClusterRun, run_id, populate_existing=True)
    if run is None:
        raise RunNotFound(f"There is no run {run_id}. GET /v1/clusters/runs lists them.")
    return run


def page(session: Session, *, space_id: int | None, before: int | None, limit: int) -> list[tuple[ClusterRun, str]]:
    """Up to `limit` runs with an id below `before`, newest first, each with its space's key."""
    statement = select(ClusterRun, SpaceRow.key).join(SpaceRow, SpaceRow.id == ClusterRun.space_id)
    if space_id is not None:
        statement = statement.where(ClusterRun.space_id == space_id)
    rows = session.execute(newest_first(statement, ClusterRun.id, before, limit))
    return [(run, key) for run, key in rows]


def current(session: Session, space_id: int) -> ClusterRun | None:
    """The run that is shown of a space."""
    statement = select(ClusterRun).where(ClusterRun.space_id == space_id, ClusterRun.current)
    return session.scalars(statement).one_or_none()


def newest_current(session: Session) -> tuple[ClusterRun, SpaceRow] | None:
    """The run that is shown of the newest serving space of the most preferred feature that has one."""
    statement = (
        select(ClusterRun, SpaceRow)
        .join(SpaceRow, SpaceRow.id == ClusterRun.space_id)
        .where(SpaceRow.serving, SpaceRow.feature.in_(PREFERRED), ClusterRun.current)
        .order_by(preference, SpaceRow.id.desc())
        .limit(1)
    )
    row = session.execute(statement).one_or_none()
    return (row[0], row[1]) if row else None


def waiting(session: Session) -> list[ClusterRun]:
    """Runs that nobody works on: queued ones, and those whose process died."""
    statement = select(ClusterRun).where(ClusterRun.state.in_(_ACTIVE)).order_by(ClusterRun.id)
    runs = session.scalars(statement).all()
    return [run for run in runs if run.state == RunState.QUEUED or try_lock(session, run.space_id)]


def try_lock(session: Session, space_id: int) -> bool:
    """Become the only one that clusters a space until the transaction ends; False where somebody is."""
    return locks.try_acquire(session, Lock.CLUSTERS, space_id)


def take(session: Session, space_id: int) -> ClusterRun | None:
    """Take the run that waits on that space, or was left by a process that died; the caller holds the lock."""
    values = {"state": RunState.RUNNING, "attempts": ClusterRun.attempts + 1, "started_at": func.now()}
    statement = (
        update(ClusterRun)
        .where(ClusterRun.space_id == space_id, ClusterRun.state.in_(_ACTIVE))
        .values(**values, stage="reading vectors")
        .returning(ClusterRun)
    )
    return session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()


def tell(session: Session, run_id: int, stage: str) -> None:
    session.execute(update(ClusterRun).where(ClusterRun.id == run_id).values(stage=stage))


def fail(session: Session, run_id: int, error: Exception) -> None:
    values = {"state": RunState.FAILED, **ErrorRecord.from_error(error).columns()}
    statement = update(ClusterRun).where(ClusterRun.id == run_id)
    session.execute(statement.values(**values, stage=None, finished_at=func.now()))


def finish(session: Session, run: ClusterRun, **values: Any) -> None:
    """End a run well and show it in place of the one before."""
    session.execute(
        update(ClusterRun).where(ClusterRun.space_id == run.space_id, ClusterRun.current).values(current=False)
    )
    done = {"state": RunState.DONE, "current": True, "stage": None, "finished_at": func.now()}
    session.execute(update(ClusterRun).where(ClusterRun.id == run.id).values(**done, **values))


_REFITS = text("""
    SELECT spaces.id, coalesce(current.covered_seq, 0) AS covered_seq,
        CASE WHEN spaces.base_repo IS NULL THEN 0 ELSE coalesce(current.models, 0) END AS models
    FROM spaces
    LEFT JOIN cluster_runs AS current ON current.space_id = spaces.id AND current.current
    LEFT JOIN LATERAL (
        SELECT state, finished_at, seconds FROM cluster_runs WHERE space_id = spaces.id ORDER BY id DESC LIMIT 1
    ) AS last ON true
    WHERE coalesce(last.state, 'done') NOT IN ('queued', 'running')
        AND (last.finished_at IS NULL OR last.finished_at < now() - make_interval(secs =>
            CASE WHEN last.state = 'failed' THEN :after_failure ELSE :rest * coalesce(last.seconds, 0) END))
""")


def covered(session: Session, *, rest: float, after_failure: float) -> dict[int, tuple[int, int]]:
    """Of each space that may be clustered again now: the last change that its shown run covers, and how many models;
    none where it spans bases, since a share of all models says nothing of a base whose first few have come.

    A space rests for `rest` times as long as its last run took, or `after_failure` seconds where that failed.
    """
    rows = session.execute(_REFITS, {"rest": rest, "after_failure": after_failure})
    return {space_id: (seq, models) for space_id, seq, models in rows}
