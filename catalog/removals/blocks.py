"""Blocks: adding one removes the models that it applies to."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.blocks import repository as blocks
from catalog.database import Database
from catalog.models.repo_ref import RepoRef
from catalog.removals import repository as removals
from catalog.removals.service import erase
from catalog.tables import Block, BlockKind
from catalog.vectors.repository import feed

MODELS_PER_TRANSACTION = 200


@dataclass(frozen=True)
class AddedBlock:
    """A block, and the number of models that were removed when it was added."""

    block: Block
    removed: int


def add(database: Database, kind: BlockKind, value: str, reason: str | None = None) -> AddedBlock:
    """Add a block, or return the existing one, and remove the models that it applies to. Raises `InvalidRepoId` for a
    repo that is not OWNER/NAME.
    """
    if kind is BlockKind.REPO:
        RepoRef(value)
    with database.transaction(timeouts=False) as session:
        feed.lock_feed(session)  # what is stored later is checked against the block
        block = blocks.create(session, kind, value, reason)
    removed = 0
    while True:
        with database.transaction(timeouts=False) as session:
            feed.lock_feed(session)
            page = [model.id for model in removals.list_by_block(session, block, MODELS_PER_TRANSACTION)]
            if not page:
                return AddedBlock(block, removed)
            erase(session, page)
        removed += len(page)


def list_page(database: Database, *, before: int | None, limit: int) -> list[Block]:
    """Up to `limit` blocks with an id below `before`, newest first."""
    with database.transaction() as session:
        return blocks.list_page(session, before=before, limit=limit)


def delete(database: Database, block_id: int) -> Block:
    """Delete a block and return it. Its models stay removed until they are asked for. Raises `BlockNotFound`."""
    with database.transaction() as session:
        block = blocks.get(session, block_id)
        session.delete(block)
    return block
