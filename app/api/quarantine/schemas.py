"""JSON of the quarantine."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from app.api.schemas import NO_NUL, PageQuery
from catalog.tables import QuarantineEntry, QuarantineKind


class QuarantineQuery(PageQuery):
    repo: str | None = Field(None, max_length=200, pattern=NO_NUL, description="Only this repo or base.")


class LastEnd(BaseModel):
    code: str
    message: str


class Entry(BaseModel):
    id: int
    kind: QuarantineKind = Field(description="`repo`: a fine-tune; `base`: a base model.")
    repo_id: str = Field(description="In lower case.")
    sha: str | None = Field(description="The commit; null: all commits, since it was not known yet.")
    submitted_base: str | None = Field(description="Only jobs whose submission named this base.")
    ends: int = Field(description="Number of processes that its files ended.")
    error: LastEnd = Field(description="How the last of them ended.")
    last_end_at: datetime
    quarantined_at: datetime | None

    @classmethod
    def from_row(cls, row: QuarantineEntry) -> Self:
        return cls(
            id=row.id,
            kind=QuarantineKind(row.kind),
            repo_id=row.repo_id,
            sha=row.sha or None,
            submitted_base=row.submitted_base or None,
            ends=row.ends,
            error=LastEnd(code=row.error_code, message=row.error_message),
            last_end_at=row.last_end_at,
            quarantined_at=row.quarantined_at,
        )


class Quarantine(BaseModel):
    quarantine: list[Entry]
    next_cursor: str | None
