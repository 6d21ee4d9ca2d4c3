"""Crawls: asked for, stopped and resumed, and what a page of the Hub's list becomes.

The Hub itself is asked by `workers/maintenance/crawler.py`. A page is handled in one transaction: what it tells is
stored, what is new or changed is queued, the cursor moves. Whatever dies before that commit has done nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from catalog.database import Database
from catalog.errors import CrawlOver, InvalidInput
from catalog.hub_sync.removals import follow, remove
from catalog.hub_sync.repository import crawls, listings
from catalog.hub_sync.repository.listings import Listed
from catalog.jobs.repository import workers
from catalog.jobs.submissions import enqueue
from catalog.models.repo_ref import LOCAL_OWNER, RepoRef
from catalog.models.repository import names
from catalog.tables import Crawl, CrawlState, Model, Priority
from catalog.vectors.repository import feed

PAGE = 100  # repos asked for at once
RINGS_A_PAGE = 16  # one bell is enough for a worker to go through all that waits
RELATIONS = ("adapter", "finetune")
MAX_IDS = 50_000
OVERLAP = timedelta(hours=1)  # between two runs, for the Hub's clock is not ours
ASSUMED_PACE = 1.0  # jobs a second of one worker, before any was seen
ASSUMED_BANDWIDTH = 50e6  # bytes a second


@dataclass(frozen=True)
class Source:
    """Where repos come from, exactly one of: the fine-tunes of a `base` (`relations`: which kinds), all of an `owner`,
    all with a `tag`, a `collection` (its slug), or `ids`. Raises `InvalidInput`, `InvalidRepoId`.
    """

    base: str | None = None
    relations: tuple[str, ...] = RELATIONS
    owner: str | None = None
    tag: str | None = None
    collection: str | None = None
    ids: tuple[str, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        given = [each for each in (self.base, self.owner, self.tag, self.collection, self.ids) if each is not None]
        if len(given) != 1:
            raise InvalidInput("Give exactly one of base, owner, tag, collection and ids.")
        if self.base is not None:
            RepoRef(self.base)
        for repo_id in self.ids or ():
            RepoRef(repo_id)
        if not self.relations or not set(self.relations) <= set(RELATIONS):
            raise InvalidInput(f"A relation is one of {' and '.join(RELATIONS)}.")

    def filters(self) -> list[dict[str, str]]:
        """What the Hub's list is asked for, one after the other; none for a collection and for ids."""
        if self.base is not None:
            return [{"filter": f"base_model:{relation}:{self.base}"} for relation in self.relations]
        if self.owner is not None:
            return [{"author": self.owner}]
        return [{"filter": self.tag}] if self.tag is not None else []

    def stored(self) -> dict[str, Any]:
        told = {name: value for name, value in asdict(self).items() if value is not None and name != "ids"}
        return told if self.base is not None else {name: told[name] for name in told if name != "relations"}

    @classmethod
    def of(cls, crawl: Crawl) -> Source:
        told: Mapping[str, Any] = crawl.source
        ids = None if "collection" in told or crawl.ids is None else tuple(crawl.ids)
        relations = tuple(told.get("relations", RELATIONS))
        return cls(**{name: told[name] for name in told if name != "relations"}, relations=relations, ids=ids)


@dataclass(frozen=True)
class Limits:
    """`max_models` queued in one run; repos with fewer than `min_downloads` are left out. A `dry_run` queues nothing
    and counts. `every` seconds it begins anew.
    """

    max_models: int | None = None
    min_downloads: int | None = None
    dry_run: bool = False
    every: int | None = None


@dataclass(frozen=True)
class Page:
    """What one request gave. `cursor`: what to ask for next; None: the list ends. `ids`: those of a collection, to be
    asked for one by one. `unread`: entries that cannot be used.
    """

    repos: tuple[Listed, ...] = ()
    cursor: str | None = None
    ids: tuple[str, ...] | None = None
    unread: int = 0


@dataclass(frozen=True)
class Estimate:
    """What a crawl's queued repos cost: bytes from those whose size the Hub told, hours at the pace that was seen
    (or assumed, before any was) with the workers that are alive, one at least.
    """

    size: int | None
    hours: float
    measured: bool
    workers: int


def start(database: Database, source: Source, limits: Limits) -> Crawl:
    """Raises `InvalidInput`."""
    if limits.dry_run and limits.every:
        raise InvalidInput("A dry run does not recur.")
    ids = list(dict.fromkeys(source.ids)) if source.ids is not None else None
    with database.transaction() as session:
        return crawls.add(session, source=source.stored(), ids=ids, **asdict(limits))


def get(database: Database, crawl_id: int, heartbeat_limit: float) -> tuple[Crawl, Estimate]:
    """A crawl, and what it costs with the workers of now. Raises `CrawlNotFound`."""
    with database.transaction() as session:
        crawl = crawls.get(session, crawl_id)
        return crawl, estimate(session, crawl, heartbeat_limit)


def page(database: Database, *, before: int | None, limit: int) -> list[Crawl]:
    """Up to `limit` crawls with an id below `before`, the newest first."""
    with database.transaction() as session:
        return crawls.page(session, before=before, limit=limit)


def pause(database: Database, crawl_id: int) -> Crawl:
    """What is under way is not stored any more. Raises `CrawlNotFound` and `CrawlOver`."""
    return _moved(database, crawl_id, (*crawls.ACTIVE, CrawlState.PAUSED), CrawlState.PAUSED)


def resume(database: Database, crawl_id: int) -> Crawl:
    """Go on where it was, also after a failure. Raises `CrawlNotFound` and `CrawlOver`."""
    again = {"attempts": 0, "wait_until": None, "error_code": None, "error_message": None}
    states = (CrawlState.PAUSED, CrawlState.FAILED, *crawls.ACTIVE)
    return _moved(database, crawl_id, states, CrawlState.QUEUED, **again, finished_at=None, next_at=None)


def cancel(database: Database, crawl_id: int) -> Crawl:
    """Also ends one that recurs. Raises `CrawlNotFound` and `CrawlOver`."""
    with database.transaction() as session:
        recurs = crawls.get(session, crawl_id).next_at is not None
    over = (CrawlState.DONE,) if recurs else ()
    states = (*crawls.ACTIVE, CrawlState.PAUSED, CrawlState.FAILED, CrawlState.CANCELLED, *over)
    return _moved(database, crawl_id, states, CrawlState.CANCELLED, next_at=None)


def begin_anew(database: Database) -> list[int]:
    """Queue the recurring crawls whose time has come; they look for what changed since their last run."""
    with database.transaction() as session:
        return crawls.begin_anew(session)


def _moved(
    database: Database, crawl_id: int, states: tuple[CrawlState, ...], state: CrawlState, **values: Any
) -> Crawl:
    with database.transaction() as session:
        crawl = crawls.get(session, crawl_id)
        if not crawls.change(session, crawl_id, states, state, **values):
            raise CrawlOver(f"Crawl {crawl_id} is {crawl.state}.")
        return crawls.get(session, crawl_id)


def estimate(session: Session, crawl: Crawl, heartbeat_limit: float) -> Estimate:
    """Of what a crawl queued, or would have."""
    size = crawl.size * crawl.queued // crawl.sized if crawl.sized else None
    pace, alive = crawls.pace(session), max(1, len(workers.alive(session, heartbeat_limit)))
    seconds = crawl.queued / (pace or ASSUMED_PACE)
    if pace is None:
        seconds += (size or 0) / ASSUMED_BANDWIDTH
    return Estimate(size, seconds / alive / 3600, pace is not None, alive)


def take(database: Database, crawl: Crawl, page: Page) -> bool:
    """Store what a page tells, queue what is new or changed there, and move on, all at once. False, and nothing of it
    is done, where the crawl was stopped or has moved since `crawl` was read.
    """
    with database.transaction() as session:
        row = crawls.get(session, crawl.id, lock=True)
        if row.state != CrawlState.RUNNING or (row.listing, row.cursor, row.run) != (
            crawl.listing, crawl.cursor, crawl.run,
        ):  # fmt: skip
            return False
        repos, ended = _until(row, page.repos)
        row.listed += len(repos) + page.unread
        row.skipped += page.unread
        full = _handle(session, row, repos)
        row.pages += 1
        row.attempts, row.wait_until, row.error_code, row.error_message = 0, None, None, None
        if page.ids is not None:
            row.ids, row.cursor = list(page.ids), "0"
        else:
            row.cursor = None if ended else page.cursor
        if row.cursor is None:
            row.listing += 1
        session.flush()
        listed_all = row.cursor is None and row.listing >= max(1, len(Source.of(row).filters()))
        if full or listed_all:
            crawls.finish(session, row.id)
    return True


def _until(crawl: Crawl, repos: tuple[Listed, ...]) -> tuple[tuple[Listed, ...], bool]:
    """Those that changed since the last run (the list is in the order of changes), and whether that was all."""
    if crawl.since is None or crawl.ids is not None:
        return repos, False
    since = crawl.since - OVERLAP
    for place, each in enumerate(repos):
        if each.metadata.hub_updated_at is not None and each.metadata.hub_updated_at < since:
            return repos[:place], True
    return repos, False


def _handle(session: Session, crawl: Crawl, repos: Sequence[Listed]) -> bool:
    """Whether the crawl has queued all that it may."""
    repos = list({each.repo_id: each for each in repos}.values())
    feed.lock_feed(session)  # before any row of a model: whoever stores a vector has it first, too
    if not crawl.dry_run:
        _tidy(session, repos)
    wanted = [each for each in repos if _is_wanted(crawl, each)]
    crawl.skipped += len(repos) - len(wanted)
    known = listings.known(session, [each.repo_id for each in wanted])
    new = [each for each in wanted if listings.is_new(each, known.get(each.repo_id))]
    room = len(new) + 1 if crawl.max_models is None else crawl.max_models - crawl.queued
    if room < len(new):
        wanted, new = wanted[: wanted.index(new[room])], new[:room]
    if not crawl.dry_run:
        known = listings.store(session, wanted)
        new = [each for place, each in enumerate(new) if _enqueue(session, known[each.repo_id], each, place)]
    crawl.queued += len(new)
    crawl.unchanged += len(wanted) - len(new)
    crawl.size += sum(each.size or 0 for each in new)
    crawl.sized += sum(each.size is not None for each in new)
    return len(new) >= room


def _tidy(session: Session, repos: Sequence[Listed]) -> None:
    """Follow renames, and take away what is private now."""
    names.take(session, [each.repo_id for each in repos])
    by_hub_id = {each.metadata.hub_id: each.repo_id for each in repos if each.metadata.hub_id}
    for model, repo_id in names.moved(session, by_hub_id):
        follow(session, model, repo_id)
    for model in listings.known(session, [each.repo_id for each in repos if each.hidden]).values():
        remove(session, model)


def _is_wanted(crawl: Crawl, listed: Listed) -> bool:
    enough = crawl.min_downloads is None or (listed.metadata.downloads or 0) >= crawl.min_downloads
    return enough and not listed.hidden and RepoRef(listed.repo_id).owner != LOCAL_OWNER


def _enqueue(session: Session, model: Model, listed: Listed, place: int) -> bool:
    return enqueue(session, model, None, Priority.CRAWL, base=listed.base, ring=place < RINGS_A_PAGE)[1]
