"""JSON of a model's revisions."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field

from app.api.models import schemas
from catalog import tables
from catalog.models import history


class RevisionMeasurement(BaseModel):
    """A revision in one space, compared with the previous revision there."""

    space: str = Field(description="Key of the space.")
    feature: str
    norm: float = Field(description="Norm of the revision's vector: how far it is from its base.")
    no_shift: bool
    norm_before: float | None = Field(description="Norm of the previous revision; null if there is none in this space.")
    cosine: float | None = Field(description="Cosine to the previous revision; 1 is the same direction.")

    @classmethod
    def from_result(cls, measurement: history.RevisionMeasurement) -> Self:
        return cls(
            space=measurement.space.key,
            feature=measurement.space.feature,
            norm=measurement.norm,
            no_shift=measurement.no_shift,
            norm_before=measurement.norm_before,
            cosine=measurement.cosine,
        )


class PastRevision(schemas.Revision):
    current: bool = Field(description="Whether the index contains this revision.")
    measurements: list[RevisionMeasurement]


class Revisions(BaseModel):
    repo_id: str
    revisions: list[PastRevision]
    next_cursor: str | None

    @classmethod
    def from_result(
        cls, model: tables.Model, measured: list[history.MeasuredRevision], next_cursor: str | None
    ) -> Self:
        revisions = [
            PastRevision(
                **schemas.Revision.from_row(item.revision).model_dump(),
                current=item.revision.current,
                measurements=[RevisionMeasurement.from_result(measurement) for measurement in item.measurements],
            )
            for item in measured
        ]
        return cls(repo_id=model.repo_id, revisions=revisions, next_cursor=next_cursor)
