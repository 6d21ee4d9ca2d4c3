"""SQL of maps. Functions take and return arrays, which are stored as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Text, bindparam, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Session

from catalog import locks
from catalog.auth.repository.access import PUBLIC_VECTORS
from catalog.database import ErrorRecord
from catalog.locks import Lock
from catalog.spaces.contract import PREFERRED_FEATURES, features_named
from catalog.tables import Map, MapAttempt

MAPS_PER_SPACE = 2  # the current map, and the previous one
DISTORTION_STEPS = 255  # a share of 1 is stored as this
POINTS_PER_PAGE = 5_000
MAX_RETRY_WAIT = 86_400.0  # seconds before a map that keeps failing is tried again


@dataclass(frozen=True)
class MapData:
    """The models (n,) int64, ascending, their coordinates float32 (n, 2), and their distortion float32 (n,), 0 to 1."""

    model_ids: np.ndarray
    coordinates: np.ndarray
    distortion: np.ndarray


def store(
    session: Session, space_id: int, data: MapData, *, covered_seq: int, parameters: dict[str, Any], seconds: float
) -> Map:
    """Store a map, which becomes current, and delete all but the `MAPS_PER_SPACE` newest maps of the space."""
    order = np.argsort(data.model_ids)
    row = Map(
        space_id=space_id,
        covered_seq=covered_seq,
        models=len(order),
        model_ids=data.model_ids[order].astype("<i8").tobytes(),
        coordinates=data.coordinates[order].astype("<f4").tobytes(),
        distortion=np.rint(data.distortion[order] * DISTORTION_STEPS).astype(np.uint8).tobytes(),
        mean_distortion=float(data.distortion.mean()) if len(order) else None,
        parameters=parameters,
        seconds=seconds,
    )
    session.add(row)
    session.flush()
    newest = select(Map.id).where(Map.space_id == space_id).order_by(Map.id.desc()).limit(MAPS_PER_SPACE)
    session.execute(delete(Map).where(Map.space_id == space_id, Map.id.not_in(newest)))
    session.execute(delete(MapAttempt).where(MapAttempt.space_id == space_id))
    return row


def start_attempt(session: Session, space_id: int) -> None:
    """Record that an attempt to build a map starts. `store` deletes the record, so a process that died leaves it."""
    values: dict[str, Any] = {"started_at": func.now(), "error_code": None, "error_message": None}
    statement = insert(MapAttempt).values(space_id=space_id, count=1)
    session.execute(
        statement.on_conflict_do_update(index_elements=["space_id"], set_=values | {"count": MapAttempt.count + 1})
    )


def fail(session: Session, space_id: int, error: Exception) -> None:
    """Record the error of the current attempt."""
    values = ErrorRecord.from_error(error).columns()
    session.execute(update(MapAttempt).where(MapAttempt.space_id == space_id).values(values))


def find_attempt(session: Session, space_id: int) -> MapAttempt | None:
    """The attempt to build a space's map that is running or failed. None after a success."""
    return session.get(MapAttempt, space_id, populate_existing=True)


def find_newest(session: Session, space_id: int) -> Map | None:
    """The current map of a space. `decode` reads its arrays."""
    return session.scalars(select(Map).where(Map.space_id == space_id).order_by(Map.id.desc()).limit(1)).one_or_none()


def get(session: Session, map_id: int) -> Map:
    """The map with this id, which must exist. `decode` reads its arrays."""
    return session.get_one(Map, map_id)


def decode(row: Map) -> MapData:
    """The arrays of a stored map, which are read-only."""
    return MapData(
        np.frombuffer(row.model_ids, "<i8"),
        np.frombuffer(row.coordinates, "<f4").reshape(-1, 2),
        np.frombuffer(row.distortion, np.uint8).astype(np.float32) / DISTORTION_STEPS,
    )


def try_lock(session: Session, space_id: int) -> bool:
    """Lock the map of a space until the transaction ends. False if another process holds the lock."""
    return locks.try_acquire(session, Lock.MAP, space_id)


_REFRESHABLE = text("""
    SELECT spaces.id, coalesce(newest.covered_seq, 0), coalesce(newest.models, 0)
    FROM spaces
    LEFT JOIN LATERAL (
        SELECT covered_seq, models, seconds, created_at FROM maps WHERE space_id = spaces.id ORDER BY id DESC LIMIT 1
    ) AS newest ON true
    LEFT JOIN map_attempts AS attempt ON attempt.space_id = spaces.id
    WHERE (newest.created_at IS NULL
            OR newest.created_at < now() - make_interval(secs => :cooldown_factor * newest.seconds))
        AND (attempt.space_id IS NULL OR attempt.started_at < now() - make_interval(secs =>
            least(:retry_delay * 2 ^ least(attempt.count - 1, 30), :max_retry_wait)))
""")


def list_refreshable(session: Session, *, cooldown_factor: float, retry_delay: float) -> dict[int, tuple[int, int]]:
    """The spaces whose map may be built now, by id: (last change that the current map covers, its models).

    The cooldown of a space is `cooldown_factor` times the duration of its last map. A failed attempt is repeated after
    `retry_delay` seconds, a delay that doubles with each further failure.
    """
    values = {"cooldown_factor": cooldown_factor, "retry_delay": retry_delay, "max_retry_wait": MAX_RETRY_WAIT}
    rows = session.execute(_REFRESHABLE, values)
    return {space_id: (seq, models) for space_id, seq, models in rows}


@dataclass(frozen=True)
class MapVersion:
    """Identifies the state of a map: the map, the cluster run that its colors come from, the last change that the map
    covers, and the last change of the space.
    """

    space_id: int
    space_key: str
    dimension: int
    map_id: int
    run_id: int | None
    covered_seq: int
    last_seq: int


_CURRENT_VERSION = text(f"""
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
    bindparam("preferred", list(PREFERRED_FEATURES), ARRAY(Text)),
)


def find_current_version(session: Session, space_key: str | None) -> MapVersion | None:
    """The map of the space with this key or feature, by default of the newest serving space of the preferred feature
    that has a map.
    """
    features = list(features_named(space_key)) if space_key else []
    row = session.execute(_CURRENT_VERSION, {"name": space_key, "features": features}).one_or_none()
    return MapVersion(*row) if row else None


@dataclass(frozen=True)
class Point:
    """A model on a map, and its cluster."""

    model_id: int
    repo_id: str
    cluster_id: int | None


_POINTS = text("""
    SELECT models.id, models.repo_id, members.cluster_id
    FROM unnest(cast(:models AS bigint[])) AS requested (id)
    JOIN models ON models.id = requested.id AND models.state <> 'removed'
    LEFT JOIN cluster_members AS members ON members.run_id = :run_id AND members.model_id = models.id
    ORDER BY models.repo_id COLLATE "C"
""")


def list_points(session: Session, model_ids: Sequence[int], run_id: int | None) -> list[Point]:
    """The models that were not removed, in the order of their names, with their clusters in a run."""
    # in pages, because the rows of a large result would be decoded at once, while all other threads wait
    options = {"yield_per": POINTS_PER_PAGE}
    rows = session.execute(_POINTS, {"models": list(model_ids), "run_id": run_id}, execution_options=options)
    return [Point(*row) for row in rows]
