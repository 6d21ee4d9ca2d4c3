"""Cluster runs: queued, running and finished."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog import locks
from catalog.database import ErrorRecord, newest_first
from catalog.errors import RunNotFound
from catalog.locks import Lock
from catalog.spaces.contract import PREFERRED_FEATURES
from catalog.spaces.repository import preference
from catalog.tables import ClusterRun, RunState, SpaceRow

_ACTIVE = (RunState.QUEUED, RunState.RUNNING)


def create(
    session: Session, space_id: int, *, algorithm: str, parameters: dict[str, Any], requested_by: str
) -> tuple[ClusterRun, bool]:
    """Create a run of a space unless one is queued or running. Returns that run, and whether it was created."""
    values = {"space_id": space_id, "algorithm": algorithm, "parameters": parameters, "requested_by": requested_by}
    statement = insert(ClusterRun).values(values).on_conflict_do_nothing().returning(ClusterRun.id)
    while True:
        if (run_id := session.execute(statement).scalar_one_or_none()) is not None:
            return get(session, run_id), True
        active = select(ClusterRun).where(ClusterRun.space_id == space_id, ClusterRun.state.in_(_ACTIVE))
        if (run := session.scalars(active).one_or_none()) is not None:
            return run, False


def get(session: Session, run_id: int) -> ClusterRun:
    """Raises `RunNotFound`."""
    run = session.get(ClusterRun, run_id, populate_existing=True)
    if run is None:
        raise RunNotFound(f"There is no cluster run {run_id}. GET /v1/clusters/runs lists the runs.")
    return run


def list_page(
    session: Session, *, space_id: int | None, before: int | None, limit: int
) -> list[tuple[ClusterRun, str]]:
    """Up to `limit` runs with an id below `before`, newest first, each with the key of its space."""
    statement = select(ClusterRun, SpaceRow.key).join(SpaceRow, SpaceRow.id == ClusterRun.space_id)
    if space_id is not None:
        statement = statement.where(ClusterRun.space_id == space_id)
    rows = session.execute(newest_first(statement, ClusterRun.id, before, limit))
    return [(run, key) for run, key in rows]


def find_current(session: Session, space_id: int) -> ClusterRun | None:
    """The current run of a space."""
    statement = select(ClusterRun).where(ClusterRun.space_id == space_id, ClusterRun.current)
    return session.scalars(statement).one_or_none()


def find_newest_current(session: Session) -> tuple[ClusterRun, SpaceRow] | None:
    """The current run of the newest serving space of the most preferred feature that has one, and the space."""
    statement = (
        select(ClusterRun, SpaceRow)
        .join(SpaceRow, SpaceRow.id == ClusterRun.space_id)
        .where(SpaceRow.serving, SpaceRow.feature.in_(PREFERRED_FEATURES), ClusterRun.current)
        .order_by(preference, SpaceRow.id.desc())
        .limit(1)
    )
    row = session.execute(statement).one_or_none()
    return (row[0], row[1]) if row else None


def list_runnable(session: Session) -> list[ClusterRun]:
    """The runs that can be claimed: queued runs, and running ones whose process died."""
    statement = select(ClusterRun).where(ClusterRun.state.in_(_ACTIVE)).order_by(ClusterRun.id)
    runs = session.scalars(statement).all()
    return [run for run in runs if run.state == RunState.QUEUED or try_lock(session, run.space_id)]


def try_lock(session: Session, space_id: int) -> bool:
    """Lock a space for clustering until the transaction ends. False if another process holds the lock."""
    return locks.try_acquire(session, Lock.CLUSTERS, space_id)


def claim(session: Session, space_id: int) -> ClusterRun | None:
    """Claim the run of a space that is queued or was left by a dead process. The caller holds `try_lock`."""
    values = {"state": RunState.RUNNING, "attempts": ClusterRun.attempts + 1, "started_at": func.now()}
    statement = (
        update(ClusterRun)
        .where(ClusterRun.space_id == space_id, ClusterRun.state.in_(_ACTIVE))
        .values(**values, stage="reading vectors")
        .returning(ClusterRun)
    )
    return session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()


def set_stage(session: Session, run_id: int, stage: str) -> None:
    session.execute(update(ClusterRun).where(ClusterRun.id == run_id).values(stage=stage))


def fail(session: Session, run_id: int, error: Exception) -> None:
    values = {"state": RunState.FAILED, **ErrorRecord.from_error(error).columns()}
    statement = update(ClusterRun).where(ClusterRun.id == run_id)
    session.execute(statement.values(**values, stage=None, finished_at=func.now()))


def finish(session: Session, run: ClusterRun, **values: Any) -> None:
    """Mark a run as done and make it current. `values` are further columns."""
    session.execute(
        update(ClusterRun).where(ClusterRun.space_id == run.space_id, ClusterRun.current).values(current=False)
    )
    done = {"state": RunState.DONE, "current": True, "stage": None, "finished_at": func.now()}
    session.execute(update(ClusterRun).where(ClusterRun.id == run.id).values(**done, **values))


_REFRESHABLE = text("""
    SELECT spaces.id, coalesce(current.covered_seq, 0) AS covered_seq,
        CASE WHEN spaces.base_repo IS NULL THEN 0 ELSE coalesce(current.models, 0) END AS models
    FROM spaces
    LEFT JOIN cluster_runs AS current ON current.space_id = spaces.id AND current.current
    LEFT JOIN LATERAL (
        SELECT state, finished_at, seconds FROM cluster_runs WHERE space_id = spaces.id ORDER BY id DESC LIMIT 1
    ) AS last ON true
    WHERE coalesce(last.state, 'done') NOT IN ('queued', 'running')
        AND (last.finished_at IS NULL OR last.finished_at < now() - make_interval(secs =>
            CASE WHEN last.state = 'failed' THEN :retry_delay ELSE :cooldown_factor * coalesce(last.seconds, 0) END))
""")


def list_refreshable(session: Session, *, cooldown_factor: float, retry_delay: float) -> dict[int, tuple[int, int]]:
    """The spaces that may be clustered again now, by id: (last change that the current run covers, its models).

    The cooldown of a space is `cooldown_factor` times the duration of its last run, or `retry_delay` seconds after a
    failure. The number of models is 0 for a space that spans bases: a share of all models says nothing about a base
    that is new there.
    """
    rows = session.execute(_REFRESHABLE, {"cooldown_factor": cooldown_factor, "retry_delay": retry_delay})
    return {space_id: (seq, models) for space_id, seq, models in rows}
