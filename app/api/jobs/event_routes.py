"""Routes of job events, as streams of server-sent events."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.api.auth.caller import ViewerDep
from app.api.jobs import detail_schemas as job_detail_schemas
from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import Id
from app.api.services.services import ServicesDep
from catalog.auth.viewer import Viewer
from catalog.errors import DatabaseUnavailable, InvalidCursor, JobNotFound
from catalog.jobs import service as job_service
from catalog.jobs.service import Event, EventCursor, EventSubscription
from catalog.jobs.submissions import is_finished
from catalog.tables import TERMINAL, Job

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
MAX_EVENT_ID = 50  # characters
LastEventId = Annotated[
    str | None,
    Header(max_length=MAX_EVENT_ID, description="The `id` of the last event received; the stream continues after it."),
]
_EVENT_ID = re.compile(r"([0-9]{1,19})-([0-9]{1,19})")  # numbers below 2**63


def _subscribe(services: ServicesDep, last_event_id: LastEventId = None) -> EventSubscription:
    return job_service.subscribe(services.database, _parse_cursor(last_event_id))


def _subscribe_to_job(
    job_id: Id, services: ServicesDep, viewer: ViewerDep, last_event_id: LastEventId = None
) -> EventSubscription:
    return job_service.subscribe_to_job(services.database, job_id, _parse_cursor(last_event_id), viewer)


@router.get("/events", dependencies=[no_query], responses=problems(InvalidCursor), response_class=EventSourceResponse)
async def stream_all_events(
    start: Annotated[EventSubscription, Depends(_subscribe)], services: ServicesDep, viewer: ViewerDep
) -> AsyncIterator[ServerSentEvent]:
    """Stream every change of every job from now on, as events named `job`.

    To resume after a disconnect, send `Last-Event-ID`, as browsers do automatically. An event named `gap` means that
    some of the events since then have been deleted.
    """
    for opening in _opening_events(start):
        yield opening
    try:
        async for event in services.events.follow(start.after, viewer=viewer):
            yield _job_event(event, viewer)
    except DatabaseUnavailable:
        return  # the client reconnects with its Last-Event-ID


@router.get(
    "/{job_id}/events",
    dependencies=[no_query],
    responses=problems(InvalidCursor, JobNotFound),
    response_class=EventSourceResponse,
)
async def stream_job_events(
    start: Annotated[EventSubscription, Depends(_subscribe_to_job)], services: ServicesDep, viewer: ViewerDep
) -> AsyncIterator[ServerSentEvent]:
    """Stream the current state of a job, or its changes since `Last-Event-ID`, and then each change until it ends."""
    assert start.job is not None
    for opening in _opening_events(start):
        yield opening
    if not start.resumed or is_finished(start.job):
        yield _snapshot(start.job, start.now, viewer)
    if is_finished(start.job):
        return
    try:
        async for event in services.events.follow(start.after, start.job.id, viewer=viewer):
            yield _job_event(event, viewer)
            if event.cursor >= start.now and event.state in TERMINAL:  # after an earlier end, the job was retried
                return
    except DatabaseUnavailable:
        return


def _opening_events(start: EventSubscription) -> list[ServerSentEvent]:
    """The first events of a stream: an id to resume from, even if no event follows, and `gap` if some were deleted."""
    opening = [ServerSentEvent(id=_event_id(start.after), retry=1_000, comment="watching")]
    if not start.complete:
        opening.append(ServerSentEvent(event="gap", data={"after": _event_id(start.after)}))
    return opening


def _job_event(event: Event, viewer: Viewer) -> ServerSentEvent:
    return ServerSentEvent(
        event="job", id=_event_id(event.cursor), data=job_detail_schemas.JobEvent.from_event(event, viewer)
    )


def _snapshot(job: Job, now: EventCursor, viewer: Viewer) -> ServerSentEvent:
    return ServerSentEvent(event="job", id=_event_id(now), data=job_detail_schemas.JobEvent.from_row(job, viewer))


def _event_id(cursor: EventCursor) -> str:
    return f"{cursor.tx}-{cursor.id}"


def _parse_cursor(last_event_id: str | None) -> EventCursor | None:
    """Parse a `Last-Event-ID`. Raises `InvalidCursor`."""
    if not last_event_id:
        return None
    match = _EVENT_ID.fullmatch(last_event_id)
    tx, event_id = (int(digits) for digits in match.groups()) if match else (2**63, 2**63)
    if max(tx, event_id) >= 2**63:
        raise InvalidCursor("Invalid Last-Event-ID. Omit the header to start with the next event.")
    return EventCursor(tx, event_id)
