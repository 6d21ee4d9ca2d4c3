"""JSON of statistics and health checks."""

from __future__ import annotations

from pydantic import BaseModel, Field

from app.api.jobs.schemas import Worker
from catalog.tables import JobState, ModelState


class Stats(BaseModel):
    models: dict[ModelState, int]
    jobs: dict[JobState, int]
    bases: dict[str, int] = Field(description="Base models by the path on which they run: packed or plain.")
    workers: list[Worker]


class Check(BaseModel):
    ok: bool
    detail: str


class Readiness(BaseModel):
    ready: bool
    failed_checks: list[str]
    checks: dict[str, Check]
