"""The change feed.

Every write of a vector draws its `seq` under one advisory lock that is held until the commit, so seqs become visible in
ascending order: a reader that asks for `seq > last` never misses a row that was committed late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog import locks
from catalog.auth.repository.access import PUBLIC_VECTORS
from catalog.locks import Lock
from catalog.tables import Revision, SpaceRow, Vector, change_seq

_SPACE_CHANGES = """
    SELECT vectors.seq, vectors.space_id, vectors.model_id,
        CASE WHEN deleted OR no_shift THEN NULL ELSE data END AS data
    FROM unnest(cast(:spaces AS bigint[]), cast(:positions AS bigint[])) AS positions (space_id, seq)
    JOIN vectors ON vectors.space_id = positions.space_id AND vectors.seq > positions.seq
    {where}
    ORDER BY vectors.seq LIMIT :limit
"""
_CHANGES_OF_ALL = text(_SPACE_CHANGES.format(where=""))
_CHANGES_OF_PUBLIC = text(_SPACE_CHANGES.format(where=f"WHERE {PUBLIC_VECTORS}"))

_CHANGED_MODELS = text(f"""
    SELECT DISTINCT ON (model_id) model_id, seq, deleted OR no_shift
    FROM vectors WHERE space_id = :space_id AND seq > :after AND {PUBLIC_VECTORS} ORDER BY model_id, seq DESC
""")


@dataclass(frozen=True)
class Change:
    """One entry of the feed. `vector` is float32 (d,), or None if the model left the space."""

    seq: int
    space_id: int
    model_id: int
    vector: np.ndarray | None


def lock_feed(session: Session) -> None:
    """Acquire the lock for writing to the feed until the transaction ends."""
    locks.acquire(session, Lock.FEED)


def store(
    session: Session,
    space: SpaceRow,
    revision: Revision,
    vector: np.ndarray,
    *,
    norm: float,
    no_shift: bool,
    explanation: dict | None = None,
) -> int:
    """Store a revision's vector, and append it to the feed. The caller holds `lock_feed`. Returns the seq."""
    measured = _measurement(revision, vector, norm, no_shift, explanation)
    values = {**measured, "deleted": False, "seq": session.execute(select(change_seq.next_value())).scalar_one()}
    statement = insert(Vector).values(space_id=space.id, revision_id=revision.id, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["space_id", "revision_id"], set_=values))
    return values["seq"]


def store_outside(
    session: Session,
    space: SpaceRow,
    revision: Revision,
    vector: np.ndarray,
    *,
    norm: float,
    no_shift: bool,
    explanation: dict | None = None,
) -> None:
    """Store the vector of a revision that is not current, outside the feed: as a tombstone with a negative seq, before
    every change, so that no reader takes it for the model's newest vector. One that is in the feed keeps its place.
    """
    values = _measurement(revision, vector, norm, no_shift, explanation)
    outside = {"deleted": True, "seq": -change_seq.next_value()}
    statement = insert(Vector).values(space_id=space.id, revision_id=revision.id, **values, **outside)
    session.execute(statement.on_conflict_do_update(index_elements=["space_id", "revision_id"], set_=values))


def _measurement(
    revision: Revision, vector: np.ndarray, norm: float, no_shift: bool, explanation: dict | None
) -> dict[str, Any]:
    return {
        "model_id": revision.model_id,
        "dimension": vector.size,
        "data": vector.astype("<f4").tobytes(),
        "norm": norm,
        "no_shift": no_shift,
        "explanation": explanation,
    }


def remove(session: Session, model_id: int) -> None:
    """Turn all vectors of a model into tombstones."""
    lock_feed(session)
    in_feed = update(Vector).where(Vector.model_id == model_id, Vector.seq > 0)
    session.execute(in_feed.values(seq=change_seq.next_value(), deleted=True))


_ERASE_OLDER = text("""
    DELETE FROM vectors WHERE model_id = ANY(:models) AND id <> ALL(ARRAY(
        SELECT DISTINCT ON (model_id, space_id) id FROM vectors WHERE model_id = ANY(:models)
        ORDER BY model_id, space_id, seq DESC
    ))
""")
_ERASE_NEWEST = text("""
    UPDATE vectors SET seq = nextval('change_seq'), deleted = true, revision_id = NULL, dimension = 0, data = '',
        norm = 0, explanation = NULL
    WHERE model_id = ANY(:models)
""")


def erase(session: Session, model_ids: Sequence[int]) -> None:
    """Delete the vectors of models. One tombstone for each model and space stays, without any measurement, because
    indexes learn from it that the model is gone. The caller holds `lock_feed`.
    """
    session.execute(_ERASE_OLDER, {"models": list(model_ids)})
    session.execute(_ERASE_NEWEST, {"models": list(model_ids)})


def remove_from_other_bases(session: Session, model_id: int, base_repo: str, base_sha: str | None = None) -> None:
    """Turn a model's vectors in the spaces of other bases than `base_repo` into tombstones.

    Vectors for other commits of the same base stay, unless the model was trained on the commit `base_sha`. The caller
    holds `lock_feed`.
    """
    is_other = SpaceRow.base_repo != base_repo
    if base_sha is not None:
        is_other |= SpaceRow.base_sha != base_sha
    other_spaces = select(SpaceRow.id).where(is_other)
    statement = update(Vector).where(Vector.model_id == model_id, Vector.space_id.in_(other_spaces), ~Vector.deleted)
    session.execute(statement.values(seq=change_seq.next_value(), deleted=True))


def list_changes(session: Session, after: int, limit: int) -> list[Change]:
    """Up to `limit` entries of the feed with a seq above `after`, in the order of `seq`."""
    removed = Vector.deleted | Vector.no_shift
    statement = (
        select(Vector.seq, Vector.space_id, Vector.model_id, removed, Vector.data)
        .where(Vector.seq > after)
        .order_by(Vector.seq)
        .limit(limit)
    )
    return [
        Change(seq, space_id, model_id, None if is_removed else np.frombuffer(data, dtype="<f4"))
        for seq, space_id, model_id, is_removed, data in session.execute(statement)
    ]


def list_space_changes(
    session: Session, positions: Mapping[int, int], limit: int, *, public: bool = False
) -> list[Change]:
    """Up to `limit` entries of several spaces, in the order of `seq`; with `public`, of public models only.

    `positions` has the seq of each space (by id) after which its entries are listed.
    """
    if not positions:
        return []
    statement = _CHANGES_OF_PUBLIC if public else _CHANGES_OF_ALL
    parameters = {"spaces": list(positions), "positions": list(positions.values()), "limit": limit}
    return [
        Change(seq, space_id, model_id, None if data is None else np.frombuffer(data, dtype="<f4"))
        for seq, space_id, model_id, data in session.execute(statement, parameters)
    ]


@dataclass(frozen=True)
class ModelChange:
    """The newest change of a model in a space, with its seq. `removed`: the model left the space with it."""

    model_id: int
    seq: int
    removed: bool


def list_changed_models(session: Session, space_id: int, after: int) -> list[ModelChange]:
    """The newest change of each public model of a space that changed after a seq."""
    return [ModelChange(*row) for row in session.execute(_CHANGED_MODELS, {"space_id": space_id, "after": after})]


def last_seq(session: Session) -> int:
    """The seq of the last change of any space; 0 without any."""
    return session.execute(select(func.coalesce(func.max(Vector.seq), 0)).where(Vector.seq > 0)).scalar_one()
