"""How much of spaces changed since something was made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from catalog.auth.repository import PUBLIC_VECTORS


@dataclass(frozen=True)
class Changed:
    """Changes counted no further than asked, and the seconds since the first and the last of them was stored."""

    space_id: int
    changes: int
    first_ago: float
    last_ago: float


# of private models nothing is made that all share, so they call for nothing
_CHANGED = text(f"""
    SELECT place.space_id, counted.changes,
        extract(epoch FROM now() - first.created_at)::float8, extract(epoch FROM now() - last.created_at)::float8
    FROM unnest(cast(:spaces AS bigint[]), cast(:covered AS bigint[]), cast(:enough AS bigint[]))
        AS place (space_id, covered, enough)
    CROSS JOIN LATERAL (
        SELECT count(*) AS changes FROM (
            SELECT 1 FROM vectors
            WHERE space_id = place.space_id AND seq > place.covered AND {PUBLIC_VECTORS} LIMIT place.enough
        ) AS those
    ) AS counted
    JOIN LATERAL (
        SELECT created_at FROM vectors
        WHERE space_id = place.space_id AND seq > place.covered AND {PUBLIC_VECTORS} ORDER BY seq LIMIT 1
    ) AS first ON true
    JOIN LATERAL (
        SELECT created_at FROM vectors
        WHERE space_id = place.space_id AND {PUBLIC_VECTORS} ORDER BY seq DESC LIMIT 1
    ) AS last ON true
""")


def changed(session: Session, covered: Mapping[int, int], enough: Mapping[int, int]) -> list[Changed]:
    """What changed in each of those spaces since its covered change, counted up to `enough`. One statement."""
    if not covered:
        return []
    places = {
        "spaces": list(covered),
        "covered": list(covered.values()),
        "enough": [enough[space_id] for space_id in covered],
    }
    return [Changed(*row) for row in session.execute(_CHANGED, places)]
