"""JSON of the retention."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from catalog.maintenance.retention import KindReport, Swept
from catalog.settings import Settings


class KindPreview(BaseModel):
    kind: str
    rows: int
    bytes: int = Field(description="Of its tables, with their indexes.")
    oldest: datetime | None
    setting: str = Field(description="The setting with the age at which rows are deleted.")
    seconds: float = Field(description="That age.")
    expired: int = Field(description="Rows that a sweep would delete now. Some kinds keep rows that are in use.")
    expired_bytes: int = Field(description="Of these rows; estimated from their share for all kinds but archives.")

    @classmethod
    def from_report(cls, report: KindReport) -> Self:
        return cls(
            kind=report.kind.name,
            rows=report.rows,
            bytes=report.bytes,
            oldest=report.oldest,
            setting=f"DELTADEX_{report.kind.setting}".upper(),
            seconds=report.retention,
            expired=report.expired,
            expired_bytes=report.expired_bytes,
        )


class SweepPreview(BaseModel):
    kinds: list[KindPreview]
    archive_bytes: int = Field(description="`DELTADEX_ARCHIVE_BYTES`: archives beyond it are refused. 0: no limit.")

    @classmethod
    def from_reports(cls, reports: Sequence[KindReport], settings: Settings) -> Self:
        return cls(kinds=[KindPreview.from_report(report) for report in reports], archive_bytes=settings.archive_bytes)


class SweptKind(BaseModel):
    kind: str
    deleted: int


class Sweep(BaseModel):
    kinds: list[SweptKind]
    complete: bool = Field(description="Whether nothing that has expired is left.")

    @classmethod
    def from_result(cls, swept: Swept) -> Self:
        kinds = [SweptKind(kind=kind, deleted=deleted) for kind, deleted in swept.deleted.items()]
        return cls(kinds=kinds, complete=swept.complete)
