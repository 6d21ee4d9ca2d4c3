"""SQL of blocks. Values are compared in lower case, because the Hub does not tell names apart by their case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, false, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog.database import newest_first
from catalog.errors import BlockNotFound, ModelBlocked
from catalog.tables import Block, BlockKind, Model


@dataclass(frozen=True)
class BlockList:
    """The blocks that may apply to some repos, by kind and value."""

    blocks: Mapping[tuple[str, str], Block]

    def find(self, repo_id: str, license: str | None = None) -> Block | None:
        """The first block that applies to a repo with this license (None: unknown)."""
        keys = _keys(repo_id, license)
        return next((self.blocks[key] for key in keys if key in self.blocks), None)


def load(session: Session, repos: Iterable[tuple[str, str | None]]) -> BlockList:
    """The blocks that apply to any of the repos, given as repo ids with licenses. One statement."""
    values: dict[str, set[str]] = {}
    for repo_id, license in repos:
        for kind, value in _keys(repo_id, license):
            values.setdefault(kind, set()).add(value)
    of_kind = [(Block.kind == kind) & Block.value.in_(sorted(of_kind)) for kind, of_kind in values.items()]
    blocks = session.scalars(select(Block).where(or_(false(), *of_kind)))
    return BlockList({(block.kind, block.value): block for block in blocks})


def find_error(session: Session, repo_id: str, license: str | None = None) -> ModelBlocked | None:
    """The error of a repo that a block applies to."""
    block = load(session, [(repo_id, license)]).find(repo_id, license)
    if block is None:
        return None
    return ModelBlocked(
        f"{repo_id} is not indexed on this server: the {block.kind} {block.value} is blocked. An admin of the server "
        "can remove the block."
    )


def check(session: Session, repo_id: str, license: str | None = None) -> None:
    """Raises `ModelBlocked` if a block applies to the repo."""
    if (error := find_error(session, repo_id, license)) is not None:
        raise error


def create(session: Session, kind: BlockKind, value: str, reason: str | None) -> Block:
    """Create a block, or return the existing one."""
    key = {"kind": kind, "value": value.lower()}
    session.execute(insert(Block).values(**key, reason=reason).on_conflict_do_nothing())
    return session.scalars(select(Block).filter_by(**key)).one()


def get(session: Session, block_id: int) -> Block:
    """Raises `BlockNotFound`."""
    block = session.get(Block, block_id)
    if block is None:
        raise BlockNotFound(f"There is no block {block_id}. GET /v1/admin/blocks lists the blocks.")
    return block


def list_page(session: Session, *, before: int | None, limit: int) -> list[Block]:
    """Up to `limit` blocks with an id below `before`, newest first."""
    return list(session.scalars(newest_first(select(Block), Block.id, before, limit)))


def applies_to_model(block: Block) -> ColumnElement[bool]:
    """Condition on `Model`: the block applies to it."""
    column = {BlockKind.OWNER: Model.owner, BlockKind.REPO: Model.repo_id, BlockKind.LICENSE: Model.license}
    return func.lower(column[BlockKind(block.kind)]) == block.value


def _keys(repo_id: str, license: str | None) -> list[tuple[str, str]]:
    """The kinds and values of the blocks that would apply to a repo."""
    owner = repo_id.split("/", maxsplit=1)[0]
    keys = [(BlockKind.REPO, repo_id.lower()), (BlockKind.OWNER, owner.lower())]
    return [*keys, (BlockKind.LICENSE, license.lower())] if license else [*keys]
