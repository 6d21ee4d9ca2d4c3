"""JSON of statistics and health checks."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field

from app.api.jobs.schemas import Worker
from catalog.auth.viewer import Viewer
from catalog.jobs import service as job_service
from catalog.tables import JobState, ModelState


class Stats(BaseModel):
    models: dict[ModelState, int]
    jobs: dict[JobState, int]
    bases: dict[str, int] = Field(description="Base models by the path on which they run: packed or plain.")
    workers: list[Worker]

    @classmethod
    def from_counts(cls, counts: job_service.Stats, viewer: Viewer) -> Self:
        stats = cls.model_validate(counts, from_attributes=True)
        if not viewer.is_admin:
            for worker in stats.workers:
                worker.host = worker.pid = None
        return stats


class Check(BaseModel):
    ok: bool
    detail: str


class Readiness(BaseModel):
    ready: bool
    failed_checks: list[str]
    checks: dict[str, Check]
