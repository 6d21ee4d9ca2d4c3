"""Routes: jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from app.api import pages, schemas
from app.api.limits import no_query
from app.api.problems import problems
from app.api.services import ServicesDep
from catalog.errors import InvalidCursor, JobNotFound
from catalog.repository import jobs

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get("", responses=problems(InvalidCursor))
def page(query: Annotated[schemas.JobsQuery, Query()], services: ServicesDep) -> schemas.Jobs:
    """Jobs, the newest first."""
    with services.database.transaction() as session:
        found = jobs.page(session, state=query.state, before=pages.decode(query.cursor), limit=query.limit)
    more = pages.encode(found[-1].id) if len(found) == query.limit else None
    return schemas.Jobs(jobs=[schemas.Job.of(job) for job in found], next_cursor=more)


@router.get("/{job_id}", dependencies=[no_query], responses=problems(JobNotFound))
def get(job_id: Annotated[int, Path(ge=1, lt=2**63)], services: ServicesDep) -> schemas.Job:
    """A job: its state, its progress, and the error if it failed."""
    with services.database.transaction() as session:
        return schemas.Job.of(jobs.get(session, job_id))
