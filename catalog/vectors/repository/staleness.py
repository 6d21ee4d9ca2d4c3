"""SQL that counts the changes of spaces since their clusters or maps were computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from catalog.auth.repository.access import PUBLIC_VECTORS


@dataclass(frozen=True)
class SpaceChanges:
    """The number of changes of a space, up to the given threshold, and the seconds since the first and the last."""

    space_id: int
    changes: int
    first_ago: float
    last_ago: float


# private models do not count: clusters and maps are computed from public models alone
_CHANGES = text(f"""
    SELECT space.space_id, counted.changes,
        extract(epoch FROM now() - first.created_at)::float8, extract(epoch FROM now() - last.created_at)::float8
    FROM unnest(cast(:spaces AS bigint[]), cast(:covered AS bigint[]), cast(:thresholds AS bigint[]))
        AS space (space_id, covered, threshold)
    CROSS JOIN LATERAL (
        SELECT count(*) AS changes FROM (
            SELECT 1 FROM vectors
            WHERE space_id = space.space_id AND seq > space.covered AND {PUBLIC_VECTORS} LIMIT space.threshold
        ) AS changes
    ) AS counted
    JOIN LATERAL (
        SELECT created_at FROM vectors
        WHERE space_id = space.space_id AND seq > space.covered AND {PUBLIC_VECTORS} ORDER BY seq LIMIT 1
    ) AS first ON true
    JOIN LATERAL (
        SELECT created_at FROM vectors
        WHERE space_id = space.space_id AND {PUBLIC_VECTORS} ORDER BY seq DESC LIMIT 1
    ) AS last ON true
""")


def count_changes(session: Session, covered: Mapping[int, int], thresholds: Mapping[int, int]) -> list[SpaceChanges]:
    """The changes of each space after its covered seq, counted up to its threshold; spaces without any are left out.

    One statement for all spaces.
    """
    if not covered:
        return []
    parameters = {
        "spaces": list(covered),
        "covered": list(covered.values()),
        "thresholds": [thresholds[space_id] for space_id in covered],
    }
    return [SpaceChanges(*row) for row in session.execute(_CHANGES, parameters)]
