"""Published main segments of the indexes, and which spaces are due for a new one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.orm import Session

from catalog import database, locks
from catalog.locks import Lock
from catalog.tables import IndexSnapshot, SpaceRow


@dataclass(frozen=True)
class Due:
    """A space that has changed enough for a build, or whose newest main segment is broken. None: it has none yet."""

    space_id: int
    path: str | None
    rebuild: bool


# counts no further than to the number that decides
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


def due(session: Session, *, exact_bytes: int, rows: int, share: float, space_id: int | None = None) -> list[Due]:
    """The spaces (or the one given) that may be built now, and whether what changed calls for it.

    A space without a main segment calls for one above `exact_bytes` bytes of vectors; one that has one when `rows`
    changes have come since, or a `share` of its vectors if that is more.
    """
    values = {"exact_bytes": exact_bytes, "rows": rows, "share": share, "space_id": space_id}
    return [Due(*row) for row in session.execute(_DUE, values)]


def try_lock(session: Session, space_id: int) -> bool:
    """Become the only builder of a space until the transaction ends; False where somebody is."""
    return locks.try_acquire(session, Lock.INDEX, space_id)


def postpone(session: Session, space_id: int, delay: float, error: str | None = None) -> None:
    """No build of that space for `delay` seconds, and what went wrong with the last one."""
    later = func.now() + database.seconds(delay)
    session.execute(update(SpaceRow).where(SpaceRow.id == space_id).values(build_after=later, build_error=error))


def newest(session: Session, space_ids: Collection[int]) -> dict[int, list[IndexSnapshot]]:
    """The segments of those spaces that nobody found broken, the newest first."""
    found: dict[int, list[IndexSnapshot]] = {}
    if space_ids:
        statement = (
            select(IndexSnapshot)
            .where(IndexSnapshot.space_id.in_(space_ids), IndexSnapshot.broken.is_(None))
            .order_by(IndexSnapshot.generation.desc())
        )
        for snapshot in session.scalars(statement):
            found.setdefault(snapshot.space_id, []).append(snapshot)
    return found


def last_generation(session: Session, space_id: int) -> int:
    """0 where there was none."""
    statement = select(func.coalesce(func.max(IndexSnapshot.generation), 0)).where(IndexSnapshot.space_id == space_id)
    return session.execute(statement).scalar_one()


def publish(session: Session, snapshot: IndexSnapshot) -> None:
    session.add(snapshot)
    session.flush()


def mark_broken(session: Session, space_id: int, generation: int, reason: str) -> None:
    """So that every process leaves it and the next sweep has it made anew."""
    this = (IndexSnapshot.space_id == space_id) & (IndexSnapshot.generation == generation)
    session.execute(update(IndexSnapshot).where(this, IndexSnapshot.broken.is_(None)).values(broken=reason))


def forget_all_but(session: Session, space_id: int, keep: int) -> list[int]:
    """Drop the rows of all but the `keep` newest sound generations; returns the generations that stay."""
    kept = select(IndexSnapshot.generation).where(IndexSnapshot.space_id == space_id, IndexSnapshot.broken.is_(None))
    generations = list(session.scalars(kept.order_by(IndexSnapshot.generation.desc()).limit(keep)))
    unwanted = IndexSnapshot.generation.not_in(generations)
    session.execute(delete(IndexSnapshot).where(IndexSnapshot.space_id == space_id, unwanted))
    return generations


def build_errors(session: Session, space_ids: Collection[int]) -> dict[int, str]:
    """How the last build of those spaces failed, where it did."""
    statement = select(SpaceRow.id, SpaceRow.build_error).where(
        SpaceRow.id.in_(space_ids), SpaceRow.build_error.is_not(None)
    )
    return {space_id: error for space_id, error in session.execute(statement) if error}
