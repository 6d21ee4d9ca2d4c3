"""Crawls: creating, pausing, resuming and cancelling them, and storing the pages that they list.

`workers/maintenance/crawler.py` sends the requests to the Hub. A page is stored in one transaction: the metadata of its
repos is updated, new and changed repos are queued, and the cursor moves. A process that dies before the commit has
changed nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from catalog.blocks import repository as blocks
from catalog.database import Database
from catalog.errors import CrawlFinished, InvalidInput
from catalog.hub_sync.removals import follow_rename, remove_model
from catalog.hub_sync.repository import crawls, listings
from catalog.hub_sync.repository.listings import ListedRepo
from catalog.jobs.repository import workers
from catalog.jobs.submissions import enqueue
from catalog.models.repo_ref import RESERVED_OWNERS, RepoRef
from catalog.models.repository import names
from catalog.removals.service import erase
from catalog.tables import Crawl, CrawlState, Model, Priority
from catalog.vectors.repository import feed

PAGE_SIZE = 100  # repos per request
MAX_MESSAGES_PER_PAGE = 16  # one notification is enough: a worker then runs all jobs that wait
RELATIONS = ("adapter", "finetune")
MAX_IDS = 40_000
CLOCK_SKEW = timedelta(hours=1)  # at most, between the Hub and this catalog
ASSUMED_PACE = 1.0  # jobs per second and worker, while no job has finished
ASSUMED_BANDWIDTH = 50e6  # bytes per second


@dataclass(frozen=True)
class CrawlSource:
    """The repos to crawl, exactly one of: the fine-tunes of a `base` (of the kinds in `relations`), the models of an
    `owner`, those with a `tag`, those of a `collection` (its slug), or `ids`. Raises `InvalidInput`, `InvalidRepoId`.
    """

    base: str | None = None
    relations: tuple[str, ...] = RELATIONS
    owner: str | None = None
    tag: str | None = None
    collection: str | None = None
    ids: tuple[str, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        sources = (self.base, self.owner, self.tag, self.collection, self.ids)
        if sum(source is not None for source in sources) != 1:
            raise InvalidInput("Set exactly one of base, owner, tag, collection and ids.")
        if self.base is not None:
            RepoRef(self.base)
        for repo_id in self.ids or ():
            RepoRef(repo_id)
        if not self.relations or not set(self.relations) <= set(RELATIONS):
            raise InvalidInput(f"Unknown relation. Use one or both of {' and '.join(RELATIONS)}.")

    def filters(self) -> list[dict[str, str]]:
        """The query parameters of each Hub list to crawl; empty for a collection and for ids."""
        if self.base is not None:
            return [{"filter": f"base_model:{relation}:{self.base}"} for relation in self.relations]
        if self.owner is not None:
            return [{"author": self.owner}]
        return [{"filter": self.tag}] if self.tag is not None else []

    def to_json(self) -> dict[str, Any]:
        """The value of `crawls.source`."""
        unused = {"ids"} if self.base is not None else {"ids", "relations"}
        return {name: value for name, value in asdict(self).items() if value is not None and name not in unused}

    @classmethod
    def from_row(cls, crawl: Crawl) -> CrawlSource:
        source: Mapping[str, Any] = crawl.source
        ids = None if "collection" in source or crawl.ids is None else tuple(crawl.ids)
        relations = tuple(source.get("relations", RELATIONS))
        return cls(**{name: source[name] for name in source if name != "relations"}, relations=relations, ids=ids)


@dataclass(frozen=True)
class CrawlLimits:
    """Limits of one run: it queues at most `max_models` repos, and skips those with fewer than `min_downloads`.

    A `dry_run` counts repos without queuing them. With `include_removed`, models that an admin removed are queued
    again. A recurring crawl starts again `every` seconds after each run.
    """

    max_models: int | None = None
    min_downloads: int | None = None
    dry_run: bool = False
    include_removed: bool = False
    every: int | None = None


@dataclass(frozen=True)
class ListingPage:
    """The result of one request. `cursor` leads to the next page, and is None on the last one. `ids`, if given, are the
    repos to request one by one from now on: those of a collection, or with one that is postponed to the end. `unusable`
    counts entries that could not be parsed.
    """

    repos: tuple[ListedRepo, ...] = ()
    cursor: str | None = None
    ids: tuple[str, ...] | None = None
    unusable: int = 0


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a crawl's queued repos.

    `size` in bytes is extrapolated from the repos whose size the Hub provides. `hours` rests on the pace of finished
    jobs (`measured`; else on an assumed one) and the workers that are alive, at least one.
    """

    size: int | None
    hours: float
    measured: bool
    workers: int


def create(database: Database, source: CrawlSource, limits: CrawlLimits) -> Crawl:
    """Create a crawl; a worker picks it up. Raises `InvalidInput`."""
    if limits.dry_run and limits.every:
        raise InvalidInput("A dry run cannot recur. Leave out `every`.")
    if limits.include_removed and limits.every:
        raise InvalidInput("A recurring crawl cannot include removed models, because it would undo every removal.")
    ids = list(dict.fromkeys(source.ids)) if source.ids is not None else None
    with database.transaction() as session:
        return crawls.create(session, source=source.to_json(), ids=ids, **asdict(limits))


def get(database: Database, crawl_id: int, heartbeat_timeout: float) -> tuple[Crawl, Estimate]:
    """A crawl and its estimated cost. Raises `CrawlNotFound`."""
    with database.transaction() as session:
        crawl = crawls.get(session, crawl_id)
        return crawl, estimate(session, crawl, heartbeat_timeout)


def list_page(database: Database, *, before: int | None, limit: int) -> list[Crawl]:
    """Up to `limit` crawls with an id below `before`, newest first."""
    with database.transaction() as session:
        return crawls.list_page(session, before=before, limit=limit)


def pause(database: Database, crawl_id: int) -> Crawl:
    """Pause a crawl; the page being fetched is discarded. Raises `CrawlNotFound` and `CrawlFinished`."""
    return _set_state(database, crawl_id, (*crawls.ACTIVE, CrawlState.PAUSED), CrawlState.PAUSED)


def resume(database: Database, crawl_id: int) -> Crawl:
    """Continue a paused or failed crawl at its cursor. Raises `CrawlNotFound` and `CrawlFinished`."""
    reset = {"attempts": 0, "wait_until": None, "error_code": None, "error_message": None}
    states = (CrawlState.PAUSED, CrawlState.FAILED, *crawls.ACTIVE)
    return _set_state(database, crawl_id, states, CrawlState.QUEUED, **reset, finished_at=None, next_at=None)


def cancel(database: Database, crawl_id: int) -> Crawl:
    """Cancel a crawl and its recurrence. Raises `CrawlNotFound` and `CrawlFinished`."""
    with database.transaction() as session:
        recurs = crawls.get(session, crawl_id).next_at is not None
    done = (CrawlState.DONE,) if recurs else ()
    states = (*crawls.ACTIVE, CrawlState.PAUSED, CrawlState.FAILED, CrawlState.CANCELLED, *done)
    return _set_state(database, crawl_id, states, CrawlState.CANCELLED, next_at=None)


def restart_due(database: Database) -> list[int]:
    """Queue the recurring crawls that are due, for what changed since their last run. Returns their ids."""
    with database.transaction() as session:
        return crawls.restart_due(session)


def _set_state(
    database: Database, crawl_id: int, states: tuple[CrawlState, ...], state: CrawlState, **values: Any
) -> Crawl:
    with database.transaction() as session:
        crawl = crawls.get(session, crawl_id)
        if not crawls.set_state(session, crawl_id, states, state, **values):
            raise CrawlFinished(f"Crawl {crawl_id} is already {crawl.state}.")
        return crawls.get(session, crawl_id)


def estimate(session: Session, crawl: Crawl, heartbeat_timeout: float) -> Estimate:
    """Estimate the cost of the repos that a crawl has queued, or would queue in a dry run."""
    size = crawl.size * crawl.queued // crawl.sized if crawl.sized else None
    pace, alive = crawls.jobs_per_second(session), max(1, len(workers.list_alive(session, heartbeat_timeout)))
    seconds = crawl.queued / (pace or ASSUMED_PACE)
    if pace is None:
        seconds += (size or 0) / ASSUMED_BANDWIDTH
    return Estimate(size, seconds / alive / 3600, pace is not None, alive)


def store_page(database: Database, crawl: Crawl, page: ListingPage) -> bool:
    """Store the metadata of a page, queue its new and changed repos and move the cursor, in one transaction.

    Returns False and changes nothing if the crawl was stopped or has moved on since `crawl` was read.
    """
    with database.transaction() as session:
        row = crawls.get(session, crawl.id, lock=True)
        if row.state != CrawlState.RUNNING or (row.listing, row.cursor, row.run) != (
            crawl.listing, crawl.cursor, crawl.run,
        ):  # fmt: skip
            return False
        repos, reached_last_run = _changed_since_last_run(row, page.repos)
        row.listed += len(repos) + page.unusable
        row.skipped += page.unusable
        limit_reached = _store_repos(session, row, repos)
        row.pages += 1
        row.attempts, row.wait_until, row.error_code, row.error_message = 0, None, None, None
        row.cursor = None if reached_last_run else page.cursor
        if page.ids is not None:
            row.ids = list(page.ids)
        if row.cursor is None:
            row.listing += 1
        session.flush()
        all_listed = row.cursor is None and row.listing >= max(1, len(CrawlSource.from_row(row).filters()))
        if limit_reached or all_listed:
            if row.ids is not None:
                row.ids = list(dict.fromkeys(row.ids))  # postponed ones are in it twice
            crawls.finish(session, row.id)
    return True


def _changed_since_last_run(crawl: Crawl, repos: tuple[ListedRepo, ...]) -> tuple[tuple[ListedRepo, ...], bool]:
    """The repos that changed since the last run, and whether older ones follow. Lists begin with the latest changes."""
    if crawl.since is None or crawl.ids is not None:
        return repos, False
    since = crawl.since - CLOCK_SKEW
    for index, repo in enumerate(repos):
        if repo.metadata.hub_updated_at is not None and repo.metadata.hub_updated_at < since:
            return repos[:index], True
    return repos, False


def _store_repos(session: Session, crawl: Crawl, repos: Sequence[ListedRepo]) -> bool:
    """Store and queue the repos of a page. Returns whether the crawl has reached its `max_models`."""
    repos = list({repo.repo_id: repo for repo in repos}.values())
    feed.lock_feed(session)  # before any row of `models`, in the same order as everything that stores vectors
    if not crawl.dry_run:
        _apply_renames_and_removals(session, repos)
    accepted = [repo for repo in repos if _is_accepted(crawl, repo)]
    crawl.skipped += len(repos) - len(accepted)
    models = listings.find_models(session, [repo.repo_id for repo in accepted])
    allowed = _without_blocked(session, crawl, accepted, models)
    crawl.blocked += len(accepted) - len(allowed)
    accepted = allowed
    new = listings.select_new(session, accepted, models)
    remaining = len(new) + 1 if crawl.max_models is None else crawl.max_models - crawl.queued
    if remaining < len(new):
        accepted, new = accepted[: accepted.index(new[remaining])], new[:remaining]
    if not crawl.dry_run:
        models = listings.store(session, accepted)
        new = [repo for index, repo in enumerate(new) if _enqueue(session, models[repo.repo_id], repo, index)]
    crawl.queued += len(new)
    crawl.gated += sum(repo.gated for repo in new)
    crawl.unchanged += len(accepted) - len(new)
    crawl.size += sum(repo.size or 0 for repo in new)
    crawl.sized += sum(repo.size is not None for repo in new)
    return len(new) >= remaining


def _without_blocked(
    session: Session, crawl: Crawl, repos: Sequence[ListedRepo], models: Mapping[str, Model]
) -> list[ListedRepo]:
    """The repos without those that an admin removed, and those that a block applies to. Of the latter, models that were
    indexed before, under another license, are removed.
    """
    block_list = blocks.load(session, [(repo.repo_id, repo.metadata.license) for repo in repos])
    blocked = {repo.repo_id for repo in repos if block_list.find(repo.repo_id, repo.metadata.license)}
    removed = {name for name, model in models.items() if model.removed_at is not None}
    if (indexed := [models[name].id for name in blocked - removed if name in models]) and not crawl.dry_run:
        erase(session, indexed)
    excluded = blocked if crawl.include_removed else blocked | removed
    return [repo for repo in repos if repo.repo_id not in excluded]


def _apply_renames_and_removals(session: Session, repos: Sequence[ListedRepo]) -> None:
    """Rename the models of renamed repos, and remove those of repos that are private now."""
    names.release_former_names(session, [repo.repo_id for repo in repos])
    by_hub_id = {
        repo.metadata.hub_id: repo.repo_id for repo in repos if repo.metadata.hub_id and _is_free(repo.repo_id)
    }
    for model, repo_id in names.list_renamed(session, by_hub_id):
        follow_rename(session, model, repo_id)
    for model in listings.find_models(session, [repo.repo_id for repo in repos if repo.hidden]).values():
        remove_model(session, model)


def _is_accepted(crawl: Crawl, repo: ListedRepo) -> bool:
    popular = crawl.min_downloads is None or (repo.metadata.downloads or 0) >= crawl.min_downloads
    return popular and not repo.hidden and _is_free(repo.repo_id)


def _is_free(repo_id: str) -> bool:
    """Whether the name cannot be confused with that of a local folder or an alias."""
    return repo_id.split("/", maxsplit=1)[0] not in RESERVED_OWNERS


def _enqueue(session: Session, model: Model, repo: ListedRepo, index: int) -> bool:
    return enqueue(session, model, None, Priority.CRAWL, base_hint=repo.base, notify=index < MAX_MESSAGES_PER_PAGE)[1]
