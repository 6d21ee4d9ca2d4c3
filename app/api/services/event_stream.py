"""The events of jobs for any number of watchers, read from Postgres by one task a process.

The task keeps the last events in memory. A watcher goes through them at its own speed and has nothing but its place:
however slow it is, nothing piles up for it. One that falls behind what is kept, or comes back after a while, reads
on in Postgres until it has caught up.
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
from catalog.jobs.service import Event, Place

INTERVAL = 0.25  # seconds between looks, while anybody watches
KEPT = 5_000  # events in memory
PAGE = 500  # events that are read, or gone through, at once
READERS = 4  # watchers that read in Postgres at the same time

log = logging.getLogger(__name__)


class Broadcast:
    """Lives in one event loop, as long as it is entered."""

    def __init__(self, database: Database, *, interval: float = INTERVAL, kept: int = KEPT) -> None:
        self._database = database
        self._interval = interval
        self._kept = kept
        self._watchers = 0
        self._recent: list[Event] = []  # every event behind `_start` that was read
        self._start: Place | None = None  # None: nobody reads at the moment
        self._ended = False

    async def __aenter__(self) -> Self:
        self._news = asyncio.Event()  # set once and exchanged: whoever waits for it is told of one look
        self._wanted = asyncio.Event()
        self._readers = CapacityLimiter(READERS)
        self._task = asyncio.create_task(self._read_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end()
        await self._task  # not cancelled: a look that was left alone would keep its connection to Postgres

    def end(self) -> None:
        """Have every watcher's stream end."""
        self._ended = True
        self._wanted.set()
        self._tell()

    async def follow(self, after: Place, job_id: int | None = None, *, viewer: Viewer = PUBLIC) -> AsyncIterator[Event]:
        """Events behind a place, of one job or of all that the viewer may see, until the process ends. Raises
        `DatabaseUnavailable`.
        """
        self._watchers += 1
        self._wanted.set()
        try:
            place = after
            while not self._ended:
                news = self._news
                found, place = await self._next(place, job_id)
                for event in found:
                    if viewer.sees(event.viewer):
                        yield event
                if self._start is None or place >= self._head(self._start):
                    await news.wait()
        finally:
            self._watchers -= 1

    async def _next(self, place: Place, job_id: int | None) -> tuple[list[Event], Place]:
        """What comes behind a place, and the place behind that."""
        start = self._start
        if start is None:
            return [], place
        if place < start:
            found = await to_thread.run_sync(self._page, place, job_id, limiter=self._readers)
            last = found[-1].place if found else place
            return found, last if len(found) == PAGE else max(start, last)
        at = bisect_right(self._recent, place, key=lambda event: event.place)
        passed = self._recent[at : at + PAGE]
        found = [event for event in passed if job_id is None or event.job_id == job_id]
        return found, passed[-1].place if passed else place

    def _page(self, after: Place, job_id: int | None = None) -> list[Event]:
        return job_service.events_after(self._database, after, job_id=job_id, limit=PAGE)

    def _now(self) -> Place:
        return job_service.newest_place(self._database)

    def _head(self, start: Place) -> Place:
        return self._recent[-1].place if self._recent else start

    async def _read_on(self) -> None:
        while not self._ended:
            if not self._watchers:
                self._start, self._recent = None, []
                self._wanted.clear()
                await self._wanted.wait()
                continue
            try:
                more = await self._look()
            except DatabaseUnavailable:
                log.warning("the events of jobs cannot be read: Postgres does not answer")
                more = False
            except Exception:  # watchers wait for this task: it ends with the process alone
                log.exception("the events of jobs cannot be read; the next look tries again")
                more = False
            self._tell()
            if not more and not self._ended:
                await self._pause()

    async def _pause(self) -> None:
        """Until the next look is due, or the end."""
        self._wanted.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._interval):
                while not self._ended:
                    await self._wanted.wait()
                    self._wanted.clear()

    async def _look(self) -> bool:
        """Whether there is more to be read at once."""
        if self._start is None:
            self._start = await to_thread.run_sync(self._now)
        found = await to_thread.run_sync(self._page, self._head(self._start))
        self._recent += found
        if len(self._recent) > self._kept:
            self._start = self._recent[-self._kept - 1].place
            self._recent = self._recent[-self._kept :]
        return len(found) == PAGE

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
