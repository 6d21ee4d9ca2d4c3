"""The published main segments, and the spaces that are due for a new one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.orm import Session

from catalog import database, locks
from catalog.locks import Lock
from catalog.tables import IndexSnapshot, SpaceRow


@dataclass(frozen=True)
class DueBuild:
    """A space that may be built now: the path of its newest main segment (None: it has none), and whether it needs a
    new one because it changed enough or because that segment is broken.
    """

    space_id: int
    path: str | None
    rebuild: bool


# the LIMIT stops the count once the number is sufficient
_DUE = text("""
    SELECT spaces.id, newest.path,
        newest.broken IS NOT NULL OR (
            SELECT count(*) FROM (
                SELECT 1 FROM vectors
                WHERE vectors.space_id = spaces.id AND vectors.seq > coalesce(newest.covered_seq, 0)
                LIMIT enough
            ) AS counted
        ) >= enough AS rebuild
    FROM spaces
    LEFT JOIN LATERAL (
        SELECT * FROM index_snapshots WHERE space_id = spaces.id ORDER BY generation DESC LIMIT 1
    ) AS newest ON true
    CROSS JOIN LATERAL (
        SELECT CASE WHEN newest.id IS NULL THEN :exact_bytes / (4 * spaces.dimension) + 1
            ELSE greatest(:rows, ceil(:share * newest.vectors)) END::bigint AS enough
    ) AS limits
    WHERE (spaces.build_after IS NULL OR spaces.build_after <= now())
        AND (cast(:space_id AS bigint) IS NULL OR spaces.id = :space_id)
    ORDER BY spaces.id
""")


def list_due(
    session: Session, *, exact_bytes: int, rows: int, share: float, space_id: int | None = None
) -> list[DueBuild]:
    """The spaces that may be built now, or only `space_id`, and whether each needs a build.

    A space without a main segment needs one once its vectors take more than `exact_bytes` bytes. A space that has one
    needs a new one after `rows` changes, or after changes to a `share` of its vectors if that is more.
    """
    values = {"exact_bytes": exact_bytes, "rows": rows, "share": share, "space_id": space_id}
    return [DueBuild(*row) for row in session.execute(_DUE, values)]


def try_lock(session: Session, space_id: int) -> bool:
    """Lock the index of a space until the transaction ends. False if another builder holds the lock."""
    return locks.try_acquire(session, Lock.INDEX, space_id)


def postpone(session: Session, space_id: int, delay: float, error: str | None = None) -> None:
    """Allow no build of the space for `delay` seconds, and store the error of its last build (None: it succeeded)."""
    build_after = func.now() + database.seconds(delay)
    session.execute(update(SpaceRow).where(SpaceRow.id == space_id).values(build_after=build_after, build_error=error))


def list_newest(session: Session, space_ids: Collection[int]) -> dict[int, list[IndexSnapshot]]:
    """The segments of each of the spaces that are not marked broken, newest first."""
    by_space: dict[int, list[IndexSnapshot]] = {}
    if space_ids:
        statement = (
            select(IndexSnapshot)
            .where(IndexSnapshot.space_id.in_(space_ids), IndexSnapshot.broken.is_(None))
            .order_by(IndexSnapshot.generation.desc())
        )
        for snapshot in session.scalars(statement):
            by_space.setdefault(snapshot.space_id, []).append(snapshot)
    return by_space


def last_generation(session: Session, space_id: int) -> int:
    """The greatest generation of the space; 0 if it has none."""
    statement = select(func.coalesce(func.max(IndexSnapshot.generation), 0)).where(IndexSnapshot.space_id == space_id)
    return session.execute(statement).scalar_one()


def existing_spaces(session: Session, space_ids: Collection[int]) -> set[int]:
    """Those of the spaces that were not dropped."""
    return set(session.scalars(select(SpaceRow.id).where(SpaceRow.id.in_(space_ids)))) if space_ids else set()


def publish(session: Session, snapshot: IndexSnapshot) -> None:
    session.add(snapshot)
    session.flush()


def mark_broken(session: Session, space_id: int, generation: int, reason: str) -> None:
    """Mark a segment broken, so that every process stops using it and the next sweep has it rebuilt."""
    snapshot = (IndexSnapshot.space_id == space_id) & (IndexSnapshot.generation == generation)
    session.execute(update(IndexSnapshot).where(snapshot, IndexSnapshot.broken.is_(None)).values(broken=reason))


def delete_all_but(session: Session, space_id: int, keep: int) -> list[int]:
    """Delete the rows of all but the `keep` newest generations that are not broken. Returns the generations kept."""
    statement = (
        select(IndexSnapshot.generation)
        .where(IndexSnapshot.space_id == space_id, IndexSnapshot.broken.is_(None))
        .order_by(IndexSnapshot.generation.desc())
        .limit(keep)
    )
    generations = list(session.scalars(statement))
    obsolete = IndexSnapshot.generation.not_in(generations)
    session.execute(delete(IndexSnapshot).where(IndexSnapshot.space_id == space_id, obsolete))
    return generations


def build_errors(session: Session, space_ids: Collection[int]) -> dict[int, str]:
    """The error of the last build of each space whose last build failed."""
    statement = select(SpaceRow.id, SpaceRow.build_error).where(
        SpaceRow.id.in_(space_ids), SpaceRow.build_error.is_not(None)
    )
    return {space_id: error for space_id, error in session.execute(statement) if error}
