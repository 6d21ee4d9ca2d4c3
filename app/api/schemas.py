"""What goes in and comes out, as JSON. Unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Any, Self

from fastapi import Path
from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

from catalog import tables
from catalog.spaces.contract import NAME

MAX_DIMENSION = 65_536
MAX_PAGE = 200
MAX_UNKNOWN = 20  # fields of a request that are named as unknown one by one


class _FirstMistake(FailFast):
    __hash__ = object.__hash__  # unions of types hash what they are made of


FIRST_MISTAKE = _FirstMistake()  # of a list, which may hold nothing but mistakes: an error each would take gigabytes

Id = Annotated[int, Path(ge=1, lt=2**63)]
OwnerName = Annotated[str, Path(max_length=200)]
ModelName = Annotated[str, Path(max_length=200)]
SpaceName = Annotated[
    str | None,
    Field(
        max_length=64,
        pattern=NAME,
        description="A space by its key, or by its feature with or without `delta_`, such as `meaning`: then the one "
        "that serves, of the model's own base where a model is asked about. The default space without.",
    ),
]


class Strict(BaseModel):
    """What comes in. Lists are `FIRST_MISTAKE`, so that a request has no more errors than there are fields."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few(cls, given: Any) -> Any:
        if isinstance(given, dict) and len(given) > len(cls.model_fields) + MAX_UNKNOWN:
            raise ValueError(f"{len(given):,} fields, of which at most {len(cls.model_fields)} are known")
        return given


NO_NUL = "^[^\\x00]*$"  # Postgres takes no text with a NUL in it


class PageQuery(Strict):
    cursor: str | None = Field(None, max_length=200, description="`next_cursor` of the page before.")
    limit: int = Field(50, ge=1, le=MAX_PAGE)


class Space(BaseModel):
    """An embedding contract: vectors compare only within one."""

    model_config = ConfigDict(from_attributes=True)

    key: str
    feature: str
    layer: int
    base_repo: str | None
    base_sha: str | None
    probe_set: str
    dtype: str
    encoder_version: str
    edition: int = Field(description="The reindex that measured it anew; 0 for none.")
    dimension: int
    serving: bool = Field(description="Whether it is what questions use that name no space.")

    @classmethod
    def of(cls, space: tables.SpaceRow) -> Self:
        return cls.model_validate(space)


class Spaces(BaseModel):
    spaces: list[Space]


class SpaceQuery(Strict):
    space: SpaceName = None
