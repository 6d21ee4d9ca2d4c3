"""Walks through the Hub's lists beside the encoding: a thread that sleeps in the network nearly all of its time.

Every worker has one; whoever holds the lock asks, the others look on. All that it knows is in the crawl's row, so it
may be killed at any moment: the page in flight is asked for again, and no other.
"""

from __future__ import annotations

import logging
import random

from sqlalchemy.orm import Session

from catalog.database import Database
from catalog.errors import CatalogError, DatabaseUnavailable, HubRateLimited, Unavailable
from catalog.hub_sync import crawls as crawl_service
from catalog.hub_sync.crawls import PAGE, Page, Source
from catalog.hub_sync.repository import crawls
from catalog.periodic import PeriodicThread
from catalog.tables import Crawl
from workers.hub.listing import HubListing

LOOK = 1.0  # seconds between looks at what there is to do
MAX_ATTEMPTS = 10  # at one page
RETRY_BASE = 2.0  # seconds before a page is asked for again, doubled for each further time
LONGEST = 600.0  # seconds

log = logging.getLogger(__name__)


class Crawler:
    """Works on all crawls in turns, page by page, while fewer than `queue` jobs wait for a worker."""

    def __init__(self, database: Database, listing: HubListing, *, queue: int) -> None:
        self._database = database
        self._listing = listing
        self._queue = queue
        self._thread = PeriodicThread("crawler", self.step, LOOK)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take no further page. A request to the Hub that is under way is not waited for, as it may take as long as the
        Hub likes: its answer is dropped.
        """
        self._thread.give_up()

    def step(self) -> bool:
        """Take one page of one crawl. False where there is nothing to do now, or another process does it."""
        with self._database.transaction() as lead:
            crawl_id = self._next(lead)
            if crawl_id is None or not crawls.try_lead(lead):
                return False
            with self._database.transaction() as session:
                crawl = crawls.go_on(session, crawl_id)
            if crawl is not None:
                self._take(crawl)
        return True

    def _next(self, session: Session) -> int | None:
        if (crawl_id := crawls.next_due(session, room=True)) is None:
            return None
        full = crawls.waiting_jobs(session, self._queue) + PAGE > self._queue
        return crawls.next_due(session, room=False) if full else crawl_id

    def _take(self, crawl: Crawl) -> None:
        try:
            page = self.ask(crawl)
            if not self._thread.stopping:
                crawl_service.take(self._database, crawl, page)
        except DatabaseUnavailable:
            raise
        except Exception as error:
            self._put_off(crawl, error)

    def ask(self, crawl: Crawl) -> Page:
        """The next page of a crawl, from the Hub. Raises what `HubListing` raises."""
        source = Source.of(crawl)
        if crawl.ids is not None:
            return self._one(crawl.ids, int(crawl.cursor or 0))
        if source.collection is not None:
            return Page(ids=self._listing.collection(source.collection))
        return self._listing.page(crawl.cursor or self._listing.first(source.filters()[crawl.listing], crawl.since))

    def _one(self, ids: list[str], place: int) -> Page:
        """A page of one repo: each answer is kept before the next is asked for."""
        if place >= len(ids):
            return Page()
        repo = self._listing.repo(ids[place])
        following = str(place + 1) if place + 1 < len(ids) else None
        return Page((repo,) if repo else (), following, unread=repo is None)

    def _put_off(self, crawl: Crawl, cause: Exception) -> None:
        if isinstance(cause, CatalogError):
            error = cause
            log.warning("crawl %s: %s: %s", crawl.id, error.code, error)
        else:
            error = Unavailable(f"The crawler failed: {type(cause).__name__}. The worker's log says more.")
            log.error("a page failed in a way that has no name", exc_info=cause)
        with self._database.transaction() as session:
            asked_to_wait = isinstance(error, HubRateLimited)  # that is manners, and no failure
            if not error.transient or (crawl.attempts + 1 >= MAX_ATTEMPTS and not asked_to_wait):
                crawls.fail(session, crawl.id, error)
            else:
                crawls.defer(session, crawl.id, error, _delay(crawl.attempts, error))


def _delay(attempts: int, error: CatalogError) -> float:
    asked = error.retry_after if isinstance(error, Unavailable) else None
    return min(LONGEST, RETRY_BASE * 2**attempts) * random.uniform(0.5, 1.5) if asked is None else asked
