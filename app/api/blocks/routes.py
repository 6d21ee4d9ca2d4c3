"""Routes of blocks, for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, status

from app.api import pagination
from app.api.blocks import schemas
from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import Id, PageQuery
from app.api.services.services import ServicesDep
from catalog.errors import BlockNotFound, BodyTooLarge, InvalidCursor, InvalidRepoId
from catalog.removals import blocks as block_service

router = APIRouter(prefix="/v1/admin/blocks", tags=["admin"])


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    dependencies=[no_query],
    responses=problems(InvalidRepoId, BodyTooLarge),
)
def add_block(new: schemas.NewBlock, services: ServicesDep) -> schemas.CreatedBlock:
    """Block an owner, a repo or a license. Models that are indexed are removed; submissions, crawls and webhooks do not
    bring them back while the block exists.
    """
    kind, value = new.kind_and_value()
    return schemas.CreatedBlock.from_result(block_service.add(services.database, kind, value, new.reason))


@router.get("", responses=problems(InvalidCursor))
def list_blocks(query: Annotated[PageQuery, Query()], services: ServicesDep) -> schemas.Blocks:
    """List the blocks, newest first."""
    page = block_service.list_page(services.database, before=pagination.decode(query.cursor), limit=query.limit)
    next_cursor = pagination.next_cursor(page, query.limit, lambda block: block.id)
    return schemas.Blocks(blocks=[schemas.Block.model_validate(block) for block in page], next_cursor=next_cursor)


@router.delete("/{block_id}", dependencies=[no_query], responses=problems(BlockNotFound))
def delete_block(block_id: Id, services: ServicesDep) -> schemas.Block:
    """Delete a block and return it. Models that it removed stay removed until they are submitted again."""
    return schemas.Block.model_validate(block_service.delete(services.database, block_id))
