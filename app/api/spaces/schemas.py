"""JSON of spaces as admins see them."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field

from app.api import schemas as shared_schemas
from app.api.schemas import Strict
from catalog import tables
from catalog.removals.spaces import DroppedSpace as DroppedSpaceResult


class Space(shared_schemas.Space):
    vectors: int = Field(description="Vectors of all revisions, without those that were replaced or removed.")

    @classmethod
    def with_vectors(cls, space: tables.SpaceRow, vectors: int) -> Self:
        return cls(**shared_schemas.Space.from_row(space).model_dump(), vectors=vectors)


class Spaces(BaseModel):
    spaces: list[Space]


class DroppedSpace(Space):
    stored_vectors: int = Field(description="Vectors that users had stored in the space.")
    models_without_vectors: int = Field(description="Models that are in no space now; a reindex measures them again.")

    @classmethod
    def from_result(cls, dropped: DroppedSpaceResult) -> Self:
        space = Space.with_vectors(dropped.space, dropped.vectors).model_dump()
        return cls(
            **space, stored_vectors=dropped.stored_vectors, models_without_vectors=dropped.models_without_vectors
        )


class DropQuery(Strict):
    force: bool = Field(False, description="Drop the space even if it is serving.")
