"""JSON of requests and responses that several routes share. Unknown fields in requests are rejected."""

from __future__ import annotations

from typing import Annotated, Any, Self

from fastapi import Path
from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

from catalog import tables
from catalog.spaces.contract import NAME_PATTERN

MAX_DIMENSION = 65_536
MAX_PAGE = 200
MAX_UNKNOWN = 20  # unknown fields of a request that are reported one by one


class _FirstErrorOnly(FailFast):
    __hash__ = object.__hash__  # pydantic hashes the parts of a union


FIRST_ERROR_ONLY = _FirstErrorOnly()  # for lists: an error for each of a million items would take gigabytes

Id = Annotated[int, Path(ge=1, lt=2**63)]
OwnerName = Annotated[str, Path(max_length=200)]
ModelName = Annotated[str, Path(max_length=200)]
SpaceName = Annotated[
    str | None,
    Field(
        max_length=64,
        pattern=NAME_PATTERN,
        description="Key of a space, or a feature with or without `delta_`, such as `meaning`, for its serving space "
        "(of the model's own base if the request is about a model). Default: the newest suitable serving space of a "
        "preferred feature.",
    ),
]


class Strict(BaseModel):
    """A request. Its lists are `FIRST_ERROR_ONLY`, so that it has at most one error for each field."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _limit_unknown_fields(cls, data: Any) -> Any:
        if isinstance(data, dict) and len(data) > len(cls.model_fields) + MAX_UNKNOWN:
            raise ValueError(f"{len(data):,} fields, of which at most {len(cls.model_fields)} are known")
        return data


NO_NUL = "^[^\\x00]*$"  # Postgres cannot store NUL characters


MAX_TAGS = 20  # in one list

TeamTags = Annotated[
    list[Annotated[str, Field(max_length=100, pattern=NO_NUL)]], Field(max_length=MAX_TAGS), FIRST_ERROR_ONLY
]


class PageQuery(Strict):
    cursor: str | None = Field(None, max_length=200, description="`next_cursor` of the previous page.")
    limit: int = Field(50, ge=1, le=MAX_PAGE)


class Space(BaseModel):
    """A space. Only vectors of the same space can be compared."""

    model_config = ConfigDict(from_attributes=True)

    key: str
    feature: str
    layer: int
    base_repo: str | None
    base_sha: str | None
    probe_set: str
    dtype: str
    encoder_version: str
    edition: int = Field(description="Number of the reindex that measured it; 0 for the first measurement.")
    dimension: int
    serving: bool = Field(description="Whether queries that name no space use it.")

    @classmethod
    def from_row(cls, space: tables.SpaceRow) -> Self:
        return cls.model_validate(space)


class Spaces(BaseModel):
    spaces: list[Space]


class SpaceQuery(Strict):
    space: SpaceName = None
