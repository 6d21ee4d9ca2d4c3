"""Maps of spaces, as arrays in and arrays out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import delete, select, text
from sqlalchemy.orm import Session

from catalog.tables import Map

KEPT = 2  # maps of a space: the one shown, and the one before it
PARTS = 255  # that a share is stored in
_DRAW_LOCK = 0x6D617073  # "maps"; the space's id is added


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
    return row


def newest_id(session: Session, space_id: int) -> int | None:
    """The map that is shown of a space, without its arrays."""
    return session.scalars(
        select(Map.id).where(Map.space_id == space_id).order_by(Map.id.desc()).limit(1)
    ).one_or_none()


def newest(session: Session, space_id: int) -> Map | None:
    """The map that is shown of a space; `arrays` reads it."""
    return session.scalars(select(Map).where(Map.space_id == space_id).order_by(Map.id.desc()).limit(1)).one_or_none()


def arrays(row: Map) -> Drawn:
    """What a stored map holds. The arrays cannot be written to."""
    return Drawn(
        np.frombuffer(row.model_ids, "<i8"),
        np.frombuffer(row.places, "<f4").reshape(-1, 2),
        np.frombuffer(row.distortion, np.uint8).astype(np.float32) / PARTS,
    )


def try_lock(session: Session, space_id: int) -> bool:
    """Become the only one that draws a space until the transaction ends; False where somebody does."""
    lock = {"lock": _DRAW_LOCK + space_id}
    return session.execute(text("SELECT pg_try_advisory_xact_lock(:lock)"), lock).scalar_one()
