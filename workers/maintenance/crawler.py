"""The crawler: a thread of each worker that walks through lists of the Hub while the worker encodes.

It spends nearly all of its time waiting for the network. Only the worker that holds the lock crawls. Its state is in
the crawl's row, so it may be killed at any time: only the page being fetched is requested again.
"""

from __future__ import annotations

import logging
import random

from sqlalchemy.orm import Session

from catalog.database import Database
from catalog.errors import CatalogError, DatabaseUnavailable, HubRateLimited, HubTokenInvalid, Unavailable
from catalog.hub_sync import crawls as crawl_service
from catalog.hub_sync.crawls import PAGE_SIZE, CrawlSource, ListingPage
from catalog.hub_sync.repository import crawls
from catalog.tables import Crawl
from catalog.threads.periodic_thread import PeriodicThread
from workers.hub.listing import HubListing

POLL_INTERVAL = 1.0  # seconds, while no crawl is due
MAX_ATTEMPTS = 10  # at fetching a page
RETRY_DELAY = 2.0  # seconds before the second attempt at a page, doubled for each further one
MAX_RETRY_DELAY = 600.0  # seconds
MAX_POSTPONED = 1_000  # ids of a crawl that are asked for again at its end, while the service's token is invalid

log = logging.getLogger(__name__)


class Crawler:
    """Runs all crawls in turn, page by page, while fewer than `max_queued` jobs are queued."""

    def __init__(self, database: Database, listing: HubListing, *, max_queued: int) -> None:
        self._database = database
        self._listing = listing
        self._max_queued = max_queued
        self._thread = PeriodicThread("crawler", self.step, POLL_INTERVAL)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Fetch no further page. Does not wait for a request to the Hub in progress; its response is discarded."""
        self._thread.request_stop()

    def step(self) -> bool:
        """Fetch and store one page of one crawl. False if none is due, or another process is crawling."""
        with self._database.transaction() as lock_session:
            crawl_id = self._find_next_due(lock_session)
            if crawl_id is None or not crawls.try_lock(lock_session):
                return False
            with self._database.transaction() as session:
                crawl = crawls.begin_step(session, crawl_id)
            if crawl is not None:
                self._run_step(crawl)
        return True

    def _find_next_due(self, session: Session) -> int | None:
        if (crawl_id := crawls.find_next_due(session, queue_full=False)) is None:
            return None
        full = crawls.count_queued_jobs(session, self._max_queued) + PAGE_SIZE > self._max_queued
        return crawls.find_next_due(session, queue_full=True) if full else crawl_id

    def _run_step(self, crawl: Crawl) -> None:
        try:
            page = self.fetch_page(crawl)
            if not self._thread.stopping:
                crawl_service.store_page(self._database, crawl, page)
        except DatabaseUnavailable:
            raise
        except Exception as error:
            self._defer_or_fail(crawl, error)

    def fetch_page(self, crawl: Crawl) -> ListingPage:
        """Fetch the next page of a crawl. Raises the errors of `HubListing`."""
        source = CrawlSource.from_row(crawl)
        if crawl.ids is not None:
            return self._fetch_repo(crawl.ids, int(crawl.cursor or 0))
        if source.collection is not None:
            return ListingPage(ids=self._listing.get_collection(source.collection), cursor="0")
        return self._listing.get_page(
            crawl.cursor or self._listing.first_url(source.filters()[crawl.listing], crawl.since)
        )

    def _fetch_repo(self, ids: list[str], index: int) -> ListingPage:
        """A page with a single repo, so that each response is stored before the next request."""
        if index >= len(ids):
            return ListingPage()
        try:
            repo = self._listing.get_repo(ids[index])
        except HubTokenInvalid:
            if ids[index] in ids[:index] or len(ids) - len(set(ids)) >= MAX_POSTPONED:
                raise  # the crawl waits for a valid token
            return ListingPage(ids=(*ids, ids[index]), cursor=str(index + 1))  # the others first
        cursor = str(index + 1) if index + 1 < len(ids) else None
        return ListingPage((repo,) if repo else (), cursor, unusable=repo is None)

    def _defer_or_fail(self, crawl: Crawl, cause: Exception) -> None:
        if isinstance(cause, CatalogError):
            error = cause
            log.warning("crawl %s: %s: %s", crawl.id, error.code, error)
        else:
            error = Unavailable(f"Unexpected {type(cause).__name__} in the crawler; see the log of the worker.")
            log.error("crawl %s: unexpected error", crawl.id, exc_info=cause)
        with self._database.transaction() as session:
            counts = not isinstance(error, HubRateLimited | HubTokenInvalid)
            if not error.transient or (crawl.attempts + 1 >= MAX_ATTEMPTS and counts):
                crawls.fail(session, crawl.id, error)
            else:
                crawls.defer(session, crawl.id, error, _delay(crawl.attempts, error))


def _delay(attempts: int, error: CatalogError) -> float:
    retry_after = error.retry_after if isinstance(error, Unavailable) else None
    if retry_after is not None:
        return retry_after
    return min(MAX_RETRY_DELAY, RETRY_DELAY * 2**attempts) * random.uniform(0.5, 1.5)
