"""Maps of spaces, as arrays in and arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Text, bindparam, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Session

from catalog import locks
from catalog.auth.repository import PUBLIC_VECTORS
from catalog.error_record import ErrorRecord
from catalog.locks import Lock
from catalog.spaces.contract import PREFERRED, features_named
from catalog.tables import Map, MapAttempt

KEPT = 2  # maps of a space: the one shown, and the one before it
PARTS = 255  # that a share is stored in
LONGEST_WAIT = 86_400.0  # seconds before a drawing that keeps failing is tried again


@dataclass(frozen=True)
class Drawn:
    """The models (n,) int64, ascending, their places float32 (n, 2) and distortion float32 (n,), in 0 to 1."""

    model_ids: np.ndarray
    places: np.ndarray
    distortion: np.ndarray


def store(
    session: Session, space_id: int, drawn: Drawn, *, covered_seq: int, parameters: dict[str, Any], seconds: float
) -> Map:
    """Show a map in place of the last one, and drop all but the `KEPT` newest of its space."""
    order = np.argsort(drawn.model_ids)
    row = Map(
        space_id=space_id,
        covered_seq=covered_seq,
        models=len(order),
        model_ids=drawn.model_ids[order].astype("<i8").tobytes(),
        places=drawn.places[order].astype("<f4").tobytes(),
        distortion=np.rint(drawn.distortion[order] * PARTS).astype(np.uint8).tobytes(),
        mean_distortion=float(drawn.distortion.mean()) if len(order) else None,
        parameters=parameters,
        seconds=seconds,
    )
    session.add(row)
    session.flush()
    newest = select(Map.id).where(Map.space_id == space_id).order_by(Map.id.desc()).limit(KEPT)
    session.execute(delete(Map).where(Map.space_id == space_id, Map.id.not_in(newest)))
    session.execute(delete(MapAttempt).where(MapAttempt.space_id == space_id))
    return row


def note_attempt(session: Session, space_id: int) -> None:
    """Note that a drawing starts. Only one that ends well takes the note away: a process may die without a word."""
    values: dict[str, Any] = {"started_at": func.now(), "error_code": None, "error_message": None}
    statement = insert(MapAttempt).values(space_id=space_id, count=1)
    session.execute(
        statement.on_conflict_do_update(index_elements=["space_id"], set_=values | {"count": MapAttempt.count + 1})
    )


def fail(session: Session, space_id: int, error: Exception) -> None:
    values = ErrorRecord.from_error(error).columns()
    session.execute(update(MapAttempt).where(MapAttempt.space_id == space_id).values(values))


def attempt(session: Session, space_id: int) -> MapAttempt | None:
    """The drawing of a space that is under way or did not end well; None after one that did."""
    return session.get(MapAttempt, space_id, populate_existing=True)


def newest(session: Session, space_id: int) -> Map | None:
    """The map that is shown of a space; `arrays` reads it."""
    return session.scalars(select(Map).where(Map.space_id == space_id).order_by(Map.id.desc()).limit(1)).one_or_none()


def get(session: Session, map_id: int) -> Map:
    return session.get_one(Map, map_id)


def arrays(row: Map) -> Drawn:
    """What a stored map holds. The arrays cannot be written to."""
    return Drawn(
        np.frombuffer(row.model_ids, "<i8"),
        np.frombuffer(row.places, "<f4").reshape(-1, 2),
        np.frombuffer(row.distortion, np.uint8).astype(np.float32) / PARTS,
    )


def try_lock(session: Session, space_id: int) -> bool:
    """Become the only one that draws a space until the transaction ends; False where somebody does."""
    return locks.try_acquire(session, Lock.MAP, space_id)


_COVERED = text("""
    SELECT spaces.id, coalesce(newest.covered_seq, 0), coalesce(newest.models, 0)
    FROM spaces
    LEFT JOIN LATERAL (
        SELECT covered_seq, models, seconds, created_at FROM maps WHERE space_id = spaces.id ORDER BY id DESC LIMIT 1
    ) AS newest ON true
    LEFT JOIN map_attempts AS tried ON tried.space_id = spaces.id
    WHERE (newest.created_at IS NULL OR newest.created_at < now() - make_interval(secs => :rest * newest.seconds))
        AND (tried.space_id IS NULL OR tried.started_at < now() - make_interval(secs =>
            least(:after_failure * 2 ^ least(tried.count - 1, 30), :longest_wait)))
""")


def covered(session: Session, *, rest: float, after_failure: float) -> dict[int, tuple[int, int]]:
    """Of each space that may be drawn now: the last change that its map covers, and how many models it holds.

    A space rests for `rest` times as long as its last map took. One that failed waits `after_failure` seconds, and
    twice as long each time that it fails again.
    """
    rows = session.execute(_COVERED, {"rest": rest, "after_failure": after_failure, "longest_wait": LONGEST_WAIT})
    return {space_id: (seq, models) for space_id, seq, models in rows}


@dataclass(frozen=True)
class Standing:
    """Which map of a space is shown, by which run its clusters are told, and the last changes that each knows of."""

    space_id: int
    space_key: str
    dimension: int
    map_id: int
    run_id: int | None
    covered_seq: int
    last_seq: int


_STANDING = text(f"""
    SELECT spaces.id, spaces.key, spaces.dimension, newest.id, run.id, newest.covered_seq,
        coalesce(
            (SELECT seq FROM vectors WHERE space_id = spaces.id AND {PUBLIC_VECTORS} ORDER BY seq DESC LIMIT 1), 0
        )
    FROM spaces
    JOIN LATERAL (
        SELECT id, covered_seq FROM maps WHERE space_id = spaces.id ORDER BY id DESC LIMIT 1
    ) AS newest ON true
    LEFT JOIN cluster_runs AS run ON run.space_id = spaces.id AND run.current
    WHERE spaces.key = :name OR spaces.feature = ANY(:features)
        OR (:name IS NULL AND spaces.serving AND spaces.feature = ANY(:preferred))
    ORDER BY array_position(:preferred, spaces.feature), spaces.serving DESC, spaces.id DESC LIMIT 1
""").bindparams(
    bindparam("name", type_=Text),
    bindparam("features", type_=ARRAY(Text)),
    bindparam("preferred", list(PREFERRED), ARRAY(Text)),
)


def standing(session: Session, space_key: str | None) -> Standing | None:
    """The map of a space of that name, or of the newest serving one of the most preferred feature that has one."""
    features = list(features_named(space_key)) if space_key else []
    row = session.execute(_STANDING, {"name": space_key, "features": features}).one_or_none()
    return Standing(*row) if row else None


@dataclass(frozen=True)
class Point:
    """A model on a map: its name, and the number of its cluster."""

    model_id: int
    repo_id: str
    cluster_id: int | None


_POINTS = text("""
    SELECT models.id, models.repo_id, members.cluster_id
    FROM unnest(cast(:models AS bigint[])) AS wanted (id)
    JOIN models ON models.id = wanted.id
    LEFT JOIN cluster_members AS members ON members.run_id = :run_id AND members.model_id = models.id
    ORDER BY models.repo_id COLLATE "C"
""")


def points(session: Session, model_ids: Sequence[int], run_id: int | None) -> list[Point]:
    """The models of those that are still there, in the order of their names, with their clusters in a run."""
    rows = session.execute(_POINTS, {"models": list(model_ids), "run_id": run_id})
    return [Point(*row) for row in rows]
