"""A model's revisions as JSON."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field

from app.api.models import schemas
from catalog import tables
from catalog.models import history


class Move(BaseModel):
    """A revision in one space, beside the one before it there."""

    space: str = Field(description="Key of the space.")
    feature: str
    norm: float = Field(description="How far the revision moves its base.")
    no_shift: bool
    norm_before: float | None = Field(description="Of the revision before; null where there is none in this space.")
    cosine: float | None = Field(description="To the revision before: 1 is the same direction.")

    @classmethod
    def of(cls, move: history.Move) -> Self:
        own = {name: getattr(move, name) for name in ("norm", "no_shift", "norm_before", "cosine")}
        return cls(space=move.space.key, feature=move.space.feature, **own)


class PastRevision(schemas.Revision):
    current: bool = Field(description="Whether it is the one in the index.")
    moves: list[Move]


class Revisions(BaseModel):
    repo_id: str
    revisions: list[PastRevision]
    next_cursor: str | None

    @classmethod
    def of(cls, model: tables.Model, found: list[history.Past], next_cursor: str | None) -> Self:
        listed = [
            PastRevision(
                **schemas.Revision.of(each.revision).model_dump(),
                current=each.revision.current,
                moves=[Move.of(move) for move in each.moves],
            )
            for each in found
        ]
        return cls(repo_id=model.repo_id, revisions=listed, next_cursor=next_cursor)
