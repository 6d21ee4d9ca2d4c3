"""JSON of blocks."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.schemas import NO_NUL, Strict
from catalog.removals.blocks import AddedBlock
from catalog.tables import BlockKind

Value = Annotated[str, Field(min_length=1, max_length=200, pattern=NO_NUL)]


class NewBlock(Strict):
    """What to block: exactly one of `owner`, `repo` and `license`."""

    owner: Value | None = Field(None, description="Block all models of a user or an organization.")
    repo: Value | None = Field(None, description="Block one repo: OWNER/NAME.")
    license: Value | None = Field(None, description="Block all models with this license, as the Hub spells it.")
    reason: str | None = Field(None, max_length=1_000, pattern=NO_NUL, description="A note that admins see.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for value in (self.owner, self.repo, self.license)) != 1:
            raise ValueError("set exactly one of `owner`, `repo` and `license`")
        return self

    def kind_and_value(self) -> tuple[BlockKind, str]:
        values = {BlockKind.OWNER: self.owner, BlockKind.REPO: self.repo, BlockKind.LICENSE: self.license}
        return next((kind, value) for kind, value in values.items() if value is not None)


class Block(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    kind: BlockKind
    value: str = Field(description="In lower case.")
    reason: str | None
    created_at: datetime


class CreatedBlock(Block):
    removed: int = Field(description="Number of models that were removed because the block applies to them.")

    @classmethod
    def from_result(cls, added: AddedBlock) -> Self:
        return cls(**Block.model_validate(added.block).model_dump(), removed=added.removed)


class Blocks(BaseModel):
    blocks: list[Block]
    next_cursor: str | None
