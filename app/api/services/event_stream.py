"""Job events for any number of watchers, read from Postgres by one task per process.

The task keeps the most recent events in memory. Each watcher iterates over them at its own speed and holds only a
cursor, so a slow watcher has no queue that could grow. A watcher whose cursor is older than the events in memory reads
from Postgres until it has caught up.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Self

from anyio import CapacityLimiter, to_thread

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.errors import DatabaseUnavailable
from catalog.jobs import service as job_service
from catalog.jobs.service import Event, EventCursor

POLL_INTERVAL = 0.25  # seconds; nothing is polled without watchers
MAX_RECENT = 5_000  # events in memory
PAGE_SIZE = 500  # events per read or iteration
MAX_READERS = 4  # watchers that read from Postgres concurrently

log = logging.getLogger(__name__)


class EventStream:
    """An async context manager: the task that reads events runs in the event loop that entered it."""

    def __init__(self, database: Database, *, interval: float = POLL_INTERVAL, max_recent: int = MAX_RECENT) -> None:
        self._database = database
        self._interval = interval
        self._max_recent = max_recent
        self._watchers = 0
        self._recent: list[Event] = []  # all events after `_start` that have been read
        self._start: EventCursor | None = None  # None while there are no watchers
        self._ended = False

    async def __aenter__(self) -> Self:
        self._polled = asyncio.Event()  # set after each poll, and replaced by a new one
        self._wake = asyncio.Event()
        self._readers = CapacityLimiter(MAX_READERS)
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end()
        await self._task  # not cancelled: an abandoned read would keep its connection to Postgres

    def end(self) -> None:
        """End the streams of all watchers."""
        self._ended = True
        self._wake.set()
        self._notify_watchers()

    async def follow(
        self, after: EventCursor, job_id: int | None = None, *, viewer: Viewer = PUBLIC
    ) -> AsyncIterator[Event]:
        """Yield the events after a cursor that the viewer may see, of all jobs or of one, until the stream is ended.
        Raises `DatabaseUnavailable`.
        """
        self._watchers += 1
        self._wake.set()
        try:
            cursor = after
            while not self._ended:
                polled = self._polled
                events, cursor = await self._next(cursor, job_id)
                for event in events:
                    if viewer.can_see(event.viewer):
                        yield event
                if self._start is None or cursor >= self._newest(self._start):
                    await polled.wait()
        finally:
            self._watchers -= 1

    async def _next(self, cursor: EventCursor, job_id: int | None) -> tuple[list[Event], EventCursor]:
        """The next events after a cursor, and the cursor after them."""
        start = self._start
        if start is None:
            return [], cursor
        if cursor < start:
            events = await to_thread.run_sync(self._read_page, cursor, job_id, limiter=self._readers)
            last = events[-1].cursor if events else cursor
            return events, last if len(events) == PAGE_SIZE else max(start, last)
        index = bisect_right(self._recent, cursor, key=lambda event: event.cursor)
        page = self._recent[index : index + PAGE_SIZE]
        events = [event for event in page if job_id is None or event.job_id == job_id]
        return events, page[-1].cursor if page else cursor

    def _read_page(self, after: EventCursor, job_id: int | None = None) -> list[Event]:
        return job_service.list_events(self._database, after, job_id=job_id, limit=PAGE_SIZE)

    def _newest(self, start: EventCursor) -> EventCursor:
        return self._recent[-1].cursor if self._recent else start

    async def _run(self) -> None:
        while not self._ended:
            if not self._watchers:
                self._start, self._recent = None, []
                self._wake.clear()
                await self._wake.wait()
                continue
            try:
                more = await self._poll()
            except DatabaseUnavailable:
                log.warning("job events cannot be read: Postgres does not answer")
                more = False
            except Exception:  # the task must not end while watchers wait for it
                log.exception("Unexpected error while reading job events; retrying")
                more = False
            self._notify_watchers()
            if not more and not self._ended:
                await self._pause()

    async def _pause(self) -> None:
        """Wait until the next poll is due or the stream is ended."""
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._interval):
                while not self._ended:
                    await self._wake.wait()
                    self._wake.clear()

    async def _poll(self) -> bool:
        """Read a page of new events. True if there may be more."""
        if self._start is None:
            self._start = await to_thread.run_sync(job_service.newest_cursor, self._database)
        page = await to_thread.run_sync(self._read_page, self._newest(self._start))
        self._recent += page
        if len(self._recent) > self._max_recent:
            self._start = self._recent[-self._max_recent - 1].cursor
            self._recent = self._recent[-self._max_recent :]
        return len(page) == PAGE_SIZE

    def _notify_watchers(self) -> None:
        polled, self._polled = self._polled, asyncio.Event()
        polled.set()
