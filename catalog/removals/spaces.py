"""Dropping a space, with everything that was measured and computed in it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from catalog.database import Database
from catalog.errors import ReindexActive, SpaceServing
from catalog.removals import repository as removals
from catalog.tables import SpaceRow
from catalog.vectors.repository import feed

VECTORS_PER_TRANSACTION = 5_000


@dataclass(frozen=True)
class DroppedSpace:
    """A space that was dropped: how many vectors it had, how many stored vectors of users were in it, and how many
    models have no vector in any space now.
    """

    space: SpaceRow
    vectors: int
    stored_vectors: int
    models_without_vectors: int


def list_spaces(database: Database) -> list[tuple[SpaceRow, int]]:
    """All spaces, newest first, each with the number of its vectors."""
    with database.transaction(timeouts=False) as session:
        return removals.list_spaces(session)


def drop(database: Database, key: str, *, force: bool = False) -> DroppedSpace:
    """Drop the space whose key begins with `key`, with its vectors, index, clusters, map, geometries and the vectors
    that users stored in it.

    Raises `SpaceNotFound`, `SpaceServing` for a serving space unless `force`, and `ReindexActive` for a space that a
    reindex is measuring. If the process dies before the end, dropping it again continues.
    """
    vectors = 0
    while True:
        with database.transaction(timeouts=False) as session:
            feed.lock_feed(session)  # no vector is stored in the space until the commit
            space = removals.get_space(session, key)
            _check(session, space, force)
            rows, live = removals.delete_vectors(session, space.id, VECTORS_PER_TRANSACTION)
            vectors += live
            if rows == VECTORS_PER_TRANSACTION:
                continue
            stored = removals.count_stored_vectors(session, space.id)
            removals.delete_space(session, space)
            return DroppedSpace(space, vectors, stored, removals.reset_models_without_vectors(session))


def _check(session: Session, space: SpaceRow, force: bool) -> None:
    if (reindex_id := removals.find_active_reindex(session, space)) is not None:
        raise ReindexActive(f"Reindex {reindex_id} measures this space. Cancel the reindex first.")
    if space.serving and not force:
        raise SpaceServing(
            f"Space {space.key} answers the searches for {space.feature} of {space.base_repo or 'all bases'}. Drop it "
            "with `force` if these searches may end."
        )
