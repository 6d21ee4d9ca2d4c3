"""Routes: the events of jobs as they happen, as server-sent events."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.api.auth.viewer import ViewerDep
from app.api.jobs import detail_schemas as job_detail_schemas
from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import Id
from app.api.services.services import ServicesDep
from catalog.errors import DatabaseUnavailable, InvalidCursor, JobNotFound, WeakKey
from catalog.jobs import service as job_service
from catalog.jobs.service import Event, Following, Place
from catalog.jobs.submissions import is_over
from catalog.tables import TERMINAL, Job

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
MAX_EVENT_ID = 50  # characters
LastEventId = Annotated[
    str | None,
    Header(max_length=MAX_EVENT_ID, description="The `id` of the last event that was seen; goes on behind it."),
]
_EVENT_ID = re.compile(r"([0-9]{1,19})-([0-9]{1,19})")  # numbers below 2**63


def _start(services: ServicesDep, last_event_id: LastEventId = None) -> Following:
    return job_service.follow(services.database, _place(last_event_id))


def _start_of_job(job_id: Id, services: ServicesDep, viewer: ViewerDep, last_event_id: LastEventId = None) -> Following:
    return job_service.follow_job(services.database, job_id, _place(last_event_id), viewer)


@router.get(
    "/events", dependencies=[no_query], responses=problems(InvalidCursor, WeakKey), response_class=EventSourceResponse
)
async def of_all(
    start: Annotated[Following, Depends(_start)], services: ServicesDep, viewer: ViewerDep
) -> AsyncIterator[ServerSentEvent]:
    """Every change of every job from now on, as events named `job`.

    After a break, `Last-Event-ID` (browsers send it by themselves) goes on where the last connection ended. An event
    named `gap` says that some of what happened meanwhile is no longer kept.
    """
    for opening in _opening(start):
        yield opening
    try:
        async for event in services.events.follow(start.after, viewer=viewer):
            yield _told(event)
    except DatabaseUnavailable:
        return  # the client comes back with its Last-Event-ID


@router.get(
    "/{job_id}/events",
    dependencies=[no_query],
    responses=problems(InvalidCursor, JobNotFound, WeakKey),
    response_class=EventSourceResponse,
)
async def of_one(
    start: Annotated[Following, Depends(_start_of_job)], services: ServicesDep, viewer: ViewerDep
) -> AsyncIterator[ServerSentEvent]:
    """A job as it is now, or behind `Last-Event-ID` what became of it since; then each change until it is over."""
    assert start.job is not None
    for opening in _opening(start):
        yield opening
    if not start.resumed or is_over(start.job):
        yield _snapshot(start.job, start.now)
    if is_over(start.job):
        return
    try:
        async for event in services.events.follow(start.after, start.job.id, viewer=viewer):
            yield _told(event)
            if event.place >= start.now and event.state in TERMINAL:  # one before may have been retried since
                return
    except DatabaseUnavailable:
        return


def _opening(start: Following) -> list[ServerSentEvent]:
    """An id to come back with, also for a client that leaves before anything happens."""
    opening = [ServerSentEvent(id=_id(start.after), retry=1_000, comment="watching")]
    if not start.whole:
        opening.append(ServerSentEvent(event="gap", data={"after": _id(start.after)}))
    return opening


def _told(event: Event) -> ServerSentEvent:
    return ServerSentEvent(event="job", id=_id(event.place), data=job_detail_schemas.JobEvent.of(event))


def _snapshot(job: Job, now: Place) -> ServerSentEvent:
    return ServerSentEvent(event="job", id=_id(now), data=job_detail_schemas.JobEvent.as_it_is(job))


def _id(place: Place) -> str:
    return f"{place.tx}-{place.id}"


def _place(last_event_id: str | None) -> Place | None:
    """Raises `InvalidCursor`."""
    if not last_event_id:
        return None
    found = _EVENT_ID.fullmatch(last_event_id)
    tx, number = (int(digits) for digits in found.groups()) if found else (2**63, 2**63)
    if max(tx, number) >= 2**63:
        raise InvalidCursor("That Last-Event-ID is not one of ours. Leave it out to begin with what happens now.")
    return Place(tx, number)
