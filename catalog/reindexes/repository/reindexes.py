"""Reindexes: rows, the models that one selects, and what became of its jobs. A change of state is one statement that
names the states it starts from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog import locks
from catalog.error_record import ErrorRecord
from catalog.errors import CatalogError, ReindexNotFound
from catalog.jobs.repository.jobs import cancel
from catalog.locks import Lock
from catalog.repository import newest_first
from catalog.tables import ACTIVE, ACTIVE_REINDEX, Job, JobState, Reindex, ReindexMove, ReindexState, Revision, Stage

NAMED = 10  # models that are named with an error


def lock_start(session: Session) -> None:
    """Wait for the turn to start one; held until the transaction ends."""
    locks.acquire(session, Lock.REINDEX_START)


def add(session: Session, selection: dict[str, Any]) -> Reindex:
    row = Reindex(selection=selection)
    session.add(row)
    session.flush()
    session.refresh(row)
    return row


def get(session: Session, reindex_id: int, *, lock: bool = False) -> Reindex:
    """With `lock`, nobody else changes it until the transaction ends. Raises `ReindexNotFound`."""
    row = session.get(Reindex, reindex_id, populate_existing=True, with_for_update=lock or None)
    if row is None:
        raise ReindexNotFound(f"There is no reindex {reindex_id}. GET /v1/admin/reindexes lists them.")
    return row


def page(session: Session, *, before: int | None, limit: int) -> list[Reindex]:
    """Up to `limit` reindexes with an id below `before`, newest first."""
    return list(session.scalars(newest_first(select(Reindex), Reindex.id, before, limit)))


def active(session: Session) -> Reindex | None:
    """The one that runs or is ready."""
    return session.scalars(select(Reindex).where(Reindex.state.in_(ACTIVE_REINDEX)).limit(1)).one_or_none()


def open_ones(session: Session) -> list[int]:
    """Those on which there is something to do, the oldest first."""
    waits = Reindex.state.in_(ACTIVE_REINDEX) | (Reindex.stage == Stage.DISCARDING)
    return list(session.scalars(select(Reindex.id).where(waits).order_by(Reindex.id)))


def try_lead(session: Session) -> bool:
    """Become the only process that works on reindexes until the transaction ends; False where there is one."""
    return locks.try_acquire(session, Lock.REINDEXES)


def change(
    session: Session, reindex_id: int, states: Sequence[ReindexState], state: ReindexState, **values: Any
) -> bool:
    """Move one that is in one of `states`. False where it is in none of them."""
    statement = update(Reindex).where(Reindex.id == reindex_id, Reindex.state.in_(states)).values(state=state, **values)
    return session.execute(statement.returning(Reindex.id)).first() is not None


def fail(session: Session, reindex_id: int, error: CatalogError) -> None:
    stored = ErrorRecord.from_error(error).columns()
    change(session, reindex_id, ACTIVE_REINDEX, ReindexState.FAILED, stage=None, finished_at=func.now(), **stored)


@dataclass(frozen=True)
class Candidate:
    """A model that a selection was looked at for, and its current commit (None: it has none)."""

    model_id: int
    sha: str | None
    wanted: bool


# models by what an index finds them by, from which the rest of a selection is told one by one; private ones are left
# out, for they are read with tokens that are not kept
_AMONG = {
    "all": "SELECT id FROM models WHERE id > :cursor ORDER BY id LIMIT :limit",
    "base": """SELECT model_id AS id FROM revisions WHERE current AND base_repo = :base AND model_id > :cursor
        ORDER BY model_id LIMIT :limit""",
    "state": "SELECT id FROM models WHERE state = :state AND id > :cursor ORDER BY id LIMIT :limit",
}
_WANTED = {
    "any": "(revisions.id IS NOT NULL OR models.state = 'failed')",
    "embedded": "revisions.id IS NOT NULL",
    "space": """(SELECT true FROM vectors WHERE vectors.model_id = models.id AND vectors.space_id = :space_id
        AND NOT vectors.deleted LIMIT 1) IS NOT NULL""",
    # no vector at hand under each contract that is measured now
    "outdated": """revisions.id IS NOT NULL AND (
            SELECT count(DISTINCT spaces.feature) FROM vectors JOIN spaces ON spaces.id = vectors.space_id
            JOIN jsonb_to_recordset(cast(:contract AS jsonb))
                AS now (feature text, layer bigint, probe_set text, dtype text, encoder_version text)
                USING (feature, layer, probe_set, dtype, encoder_version)
            WHERE vectors.revision_id = revisions.id AND NOT vectors.deleted
        ) < jsonb_array_length(cast(:contract AS jsonb))""",
}
# one by one (the limits of 1 say so), never by a join that reads whole tables
_PAGE = """
    SELECT among.id, revisions.sha, models.state <> 'removed' AND NOT models.private AND {wanted} AS wanted
    FROM ({among}) AS among
    CROSS JOIN LATERAL (SELECT id, state, private FROM models WHERE id = among.id LIMIT 1) AS models
    LEFT JOIN LATERAL (
        SELECT id, sha FROM revisions WHERE model_id = among.id AND current LIMIT 1
    ) AS revisions ON true
"""


@dataclass(frozen=True)
class Selected:
    """Which models: found `among` ("all", "base", "state"), of those the `wanted` ("any", "embedded", "space",
    "outdated"), and what both need to know.
    """

    among: str
    wanted: str
    values: Mapping[str, Any]

    def statement(self, shape: str = "{page} ORDER BY 1") -> Any:
        return text(shape.format(page=_PAGE.format(among=_AMONG[self.among], wanted=_WANTED[self.wanted])))


def candidates(session: Session, selected: Selected, after: int, limit: int) -> list[Candidate]:
    """The next `limit` models with an id above `after` that a selection is looked at for."""
    values = {**selected.values, "cursor": after, "limit": limit}
    return [Candidate(*row) for row in session.execute(selected.statement(), values)]


def count(session: Session, selected: Selected) -> int:
    """How many models are selected; looks at all of them."""
    statement = selected.statement("SELECT count(*) FROM ({page}) AS every WHERE wanted")
    return session.execute(statement, {**selected.values, "cursor": 0, "limit": None}).scalar_one()


def contract_json(contract: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps([dict(each) for each in contract])


def any_job_active(session: Session, reindex_id: int) -> bool:
    return session.execute(_its_active(reindex_id).limit(1)).first() is not None


def job_counts(session: Session, reindex_id: int) -> dict[JobState, int]:
    """How many jobs of a reindex are in each state."""
    rows = session.execute(select(Job.state, func.count()).where(Job.reindex_id == reindex_id).group_by(Job.state))
    return dict.fromkeys(JobState, 0) | {JobState(state): number for state, number in rows}


@dataclass(frozen=True)
class Failures:
    """How many jobs of a reindex failed with an error, and the first models among them by name."""

    code: str
    count: int
    repo_ids: list[str]


_FAILURES = text("""
    SELECT error_code, count(*), (array_agg(repo_id ORDER BY repo_id COLLATE "C"))[1:cast(:named AS int)]
    FROM jobs JOIN models ON models.id = jobs.model_id
    WHERE reindex_id = :reindex_id AND jobs.state = 'failed' GROUP BY error_code ORDER BY count(*) DESC, error_code
""")


def failures(session: Session, reindex_id: int) -> list[Failures]:
    """The most frequent first."""
    rows = session.execute(_FAILURES, {"reindex_id": reindex_id, "named": NAMED})
    return [Failures(*row) for row in rows]


def cancel_jobs(session: Session, reindex_id: int, limit: int) -> int:
    """End up to `limit` jobs of a reindex that wait or run. Returns how many."""
    found = session.scalars(_its_active(reindex_id).limit(limit)).all()
    return sum(cancel(session, job_id) for job_id in found)


def _its_active(reindex_id: int) -> Select[int]:
    """In the order of the index, so that it is used."""
    statement = select(Job.id).where(Job.reindex_id == reindex_id, Job.state.in_(ACTIVE))
    return statement.order_by(Job.reindex_id, Job.state)


def note_move(
    session: Session, reindex_id: int, revision: Revision, *, kind: str, base_repo: str, base_sha: str, evidence: dict
) -> None:
    """Keep until the switch that a revision's base is another one, or at another commit."""
    values = {"kind": kind, "base_repo": base_repo, "base_sha": base_sha, "base_evidence": evidence}
    statement = insert(ReindexMove).values(reindex_id=reindex_id, revision_id=revision.id, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["reindex_id", "revision_id"], set_=values))
