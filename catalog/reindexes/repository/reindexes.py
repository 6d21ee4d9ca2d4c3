"""SQL of reindexes: their rows, the models that they select, and the outcomes of their jobs.

A change of state is one statement that names the states it may start from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, TextClause, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog import locks
from catalog.database import ErrorRecord, newest_first
from catalog.errors import CatalogError, ReindexNotFound
from catalog.jobs.repository.jobs import cancel
from catalog.locks import Lock
from catalog.tables import ACTIVE, ACTIVE_REINDEX, Job, JobState, Reindex, ReindexMove, ReindexState, Revision, Stage

MAX_NAMED = 10  # models that are listed with an error


def lock_start(session: Session) -> None:
    """Acquire the lock for creating a reindex until the transaction ends."""
    locks.acquire(session, Lock.REINDEX_START)


def create(session: Session, selection: dict[str, Any]) -> Reindex:
    row = Reindex(selection=selection)
    session.add(row)
    session.flush()
    session.refresh(row)
    return row


def get(session: Session, reindex_id: int, *, lock: bool = False) -> Reindex:
    """Get a reindex, with `lock` locked until the transaction ends. Raises `ReindexNotFound`."""
    row = session.get(Reindex, reindex_id, populate_existing=True, with_for_update=lock or None)
    if row is None:
        raise ReindexNotFound(f"There is no reindex {reindex_id}. GET /v1/admin/reindexes lists the reindexes.")
    return row


def list_page(session: Session, *, before: int | None, limit: int) -> list[Reindex]:
    """Up to `limit` reindexes with an id below `before`, newest first."""
    return list(session.scalars(newest_first(select(Reindex), Reindex.id, before, limit)))


def find_active(session: Session) -> Reindex | None:
    """The reindex that is running or ready, if any."""
    return session.scalars(select(Reindex).where(Reindex.state.in_(ACTIVE_REINDEX)).limit(1)).one_or_none()


def list_open(session: Session) -> list[int]:
    """The ids of reindexes that have work to do, oldest first."""
    is_open = Reindex.state.in_(ACTIVE_REINDEX) | (Reindex.stage == Stage.DISCARDING)
    return list(session.scalars(select(Reindex.id).where(is_open).order_by(Reindex.id)))


def try_lock(session: Session) -> bool:
    """Acquire the lock for running reindexes until the transaction ends. False if another process holds it."""
    return locks.try_acquire(session, Lock.REINDEXES)


def set_state(
    session: Session, reindex_id: int, states: Sequence[ReindexState], state: ReindexState, **values: Any
) -> bool:
    """Change the state of a reindex that is in one of `states`. False if it is in none of them."""
    statement = update(Reindex).where(Reindex.id == reindex_id, Reindex.state.in_(states)).values(state=state, **values)
    return session.execute(statement.returning(Reindex.id)).first() is not None


def fail(session: Session, reindex_id: int, error: CatalogError) -> None:
    stored = ErrorRecord.from_error(error).columns()
    set_state(session, reindex_id, ACTIVE_REINDEX, ReindexState.FAILED, stage=None, finished_at=func.now(), **stored)


@dataclass(frozen=True)
class Candidate:
    """A model, its current commit (None if it has none), and whether the selection includes it."""

    model_id: int
    sha: str | None
    selected: bool


# an index serves each source; conditions are then checked model by model
_SOURCES = {
    "all": "SELECT id FROM models WHERE id > :cursor ORDER BY id LIMIT :limit",
    "base": """SELECT model_id AS id FROM revisions WHERE current AND base_repo = :base AND model_id > :cursor
        ORDER BY model_id LIMIT :limit""",
    "state": "SELECT id FROM models WHERE state = :state AND id > :cursor ORDER BY id LIMIT :limit",
}
_CONDITIONS = {
    "any": "(revisions.id IS NOT NULL OR models.state = 'failed')",
    "embedded": "revisions.id IS NOT NULL",
    "space": """(SELECT true FROM vectors WHERE vectors.model_id = models.id AND vectors.space_id = :space_id
        AND NOT vectors.deleted LIMIT 1) IS NOT NULL""",
    # at least one of the measured contracts has no vector of the revision
    "outdated": """revisions.id IS NOT NULL AND (
            SELECT count(DISTINCT spaces.feature) FROM vectors JOIN spaces ON spaces.id = vectors.space_id
            JOIN jsonb_to_recordset(cast(:contract AS jsonb))
                AS contract (feature text, layer bigint, probe_set text, dtype text, encoder_version text)
                USING (feature, layer, probe_set, dtype, encoder_version)
            WHERE vectors.revision_id = revisions.id AND NOT vectors.deleted
        ) < jsonb_array_length(cast(:contract AS jsonb))""",
}
# the limits of 1 make the planner look models up one by one instead of joining whole tables;
# private models are left out, because measuring them requires Hub tokens, which are not stored
_CANDIDATES = """
    SELECT source.id, revisions.sha, models.state <> 'removed' AND NOT models.private AND {condition} AS selected
    FROM ({source}) AS source
    CROSS JOIN LATERAL (SELECT id, state, private FROM models WHERE id = source.id LIMIT 1) AS models
    LEFT JOIN LATERAL (
        SELECT id, sha FROM revisions WHERE model_id = source.id AND current LIMIT 1
    ) AS revisions ON true
"""


@dataclass(frozen=True)
class SelectionQuery:
    """The models of a `source` ("all", "base", "state") that meet a `condition` ("any", "embedded", "space",
    "outdated"), with the bind `parameters` of both.
    """

    source: str
    condition: str
    parameters: Mapping[str, Any]

    def statement(self, template: str = "{candidates} ORDER BY 1") -> TextClause:
        source, condition = _SOURCES[self.source], _CONDITIONS[self.condition]
        return text(template.format(candidates=_CANDIDATES.format(source=source, condition=condition)))


def list_candidates(session: Session, query: SelectionQuery, after: int, limit: int) -> list[Candidate]:
    """Up to `limit` models of the query's source with an id above `after`."""
    parameters = {**query.parameters, "cursor": after, "limit": limit}
    return [Candidate(*row) for row in session.execute(query.statement(), parameters)]


def count_selected(session: Session, query: SelectionQuery) -> int:
    """How many models are selected. Reads all of them."""
    statement = query.statement("SELECT count(*) FROM ({candidates}) AS candidates WHERE selected")
    return session.execute(statement, {**query.parameters, "cursor": 0, "limit": None}).scalar_one()


def contract_json(contract: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps([dict(fields) for fields in contract])


def has_active_jobs(session: Session, reindex_id: int) -> bool:
    return session.execute(_active_jobs(reindex_id).limit(1)).first() is not None


def count_jobs(session: Session, reindex_id: int) -> dict[JobState, int]:
    """The number of jobs of a reindex in each state."""
    rows = session.execute(select(Job.state, func.count()).where(Job.reindex_id == reindex_id).group_by(Job.state))
    return dict.fromkeys(JobState, 0) | {JobState(state): count for state, count in rows}


@dataclass(frozen=True)
class JobFailures:
    """The number of jobs of a reindex that failed with one error, and the first of their models by name."""

    code: str
    count: int
    repo_ids: list[str]


_FAILURES = text("""
    SELECT error_code, count(*), (array_agg(repo_id ORDER BY repo_id COLLATE "C"))[1:cast(:named AS int)]
    FROM jobs JOIN models ON models.id = jobs.model_id
    WHERE reindex_id = :reindex_id AND jobs.state = 'failed' GROUP BY error_code ORDER BY count(*) DESC, error_code
""")


def list_failures(session: Session, reindex_id: int) -> list[JobFailures]:
    """The failures of a reindex by error code, most frequent first."""
    rows = session.execute(_FAILURES, {"reindex_id": reindex_id, "named": MAX_NAMED})
    return [JobFailures(*row) for row in rows]


def cancel_jobs(session: Session, reindex_id: int, limit: int) -> int:
    """Cancel up to `limit` queued or running jobs of a reindex. Returns how many."""
    job_ids = session.scalars(_active_jobs(reindex_id).limit(limit)).all()
    return sum(cancel(session, job_id) for job_id in job_ids)


def _active_jobs(reindex_id: int) -> Select[int]:
    statement = select(Job.id).where(Job.reindex_id == reindex_id, Job.state.in_(ACTIVE))
    return statement.order_by(Job.reindex_id, Job.state)  # the order of the index, so that the planner uses it


def record_move(
    session: Session, reindex_id: int, revision: Revision, *, kind: str, base_repo: str, base_sha: str, evidence: dict
) -> None:
    """Store the base that a reindex found for a revision, until the cutover applies it."""
    values = {"kind": kind, "base_repo": base_repo, "base_sha": base_sha, "base_evidence": evidence}
    statement = insert(ReindexMove).values(reindex_id=reindex_id, revision_id=revision.id, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["reindex_id", "revision_id"], set_=values))
