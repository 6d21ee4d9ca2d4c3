"""Creates reindexes, and runs them in pages of work.

Each function for a page is one transaction: it checks the state and stage of the row, does the work and updates the
row, so a process that dies before the commit has changed nothing. `workers/maintenance/reindexer.py` calls them;
`catalog/reindexes/cutover.py` ends a reindex.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from sqlalchemy.orm import Session

from catalog.database import NOW, Database
from catalog.errors import InvalidInput, ReindexActive
from catalog.jobs.submissions import enqueue
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import models
from catalog.reindexes.repository import backfill, reindexes
from catalog.reindexes.repository.backfill import SpacePair
from catalog.reindexes.repository.reindexes import SelectionQuery
from catalog.spaces import repository as spaces
from catalog.spaces.contract import Space, describe_contract
from catalog.tables import ModelState, Priority, Reindex, ReindexState, SpaceRow, Stage
from catalog.vectors.repository import feed

CANDIDATES_PER_PAGE = 500  # models that one page checks against the selection
JOBS_PER_PAGE = 100  # jobs that one page creates at most
VECTORS_PER_PAGE = 500  # vectors that are copied, or become tombstones, in one transaction
MAX_MESSAGES_PER_PAGE = 16  # one message is enough for a worker to go through all queued jobs


@dataclass(frozen=True)
class ReindexSelection:
    """The models to measure: exactly one of `everything`, the fine-tunes of a `base`, the models of a `space` (its
    key), the models in a `state`, and the `outdated` ones, which have no vector under the workers' current contract.

    Raises `InvalidInput` and `InvalidRepoId`.
    """

    everything: bool = False
    base: str | None = None
    space: str | None = None
    state: str | None = None
    outdated: bool = False

    def __post_init__(self) -> None:
        if len(self.as_dict()) != 1:
            raise InvalidInput("Specify exactly one of all, base, space, state and outdated.")
        if self.base is not None:
            RepoRef(self.base)
        if self.state is not None and self.state not in (ModelState.INDEXED, ModelState.NO_SHIFT, ModelState.FAILED):
            raise InvalidInput("The state to reindex must be indexed, no_shift or failed.")

    def as_dict(self) -> dict[str, Any]:
        """The one criterion that is set, as it is stored."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_row(cls, row: Reindex) -> Self:
        return cls(**row.selection)

    def query(self, session: Session, contract: Sequence[Mapping[str, Any]]) -> SelectionQuery:
        """The query for the selected models, given the `contract` that is measured. Raises `SpaceNotFound`."""
        if self.base is not None:
            return SelectionQuery("base", "embedded", {"base": self.base})
        if self.state is not None:
            return SelectionQuery("state", "any", {"state": self.state})
        if self.outdated:
            return SelectionQuery("all", "outdated", {"contract": reindexes.contract_json(contract)})
        if self.space is None:
            return SelectionQuery("all", "embedded", {})
        space = spaces.get(session, self.space)
        values = {"space_id": space.id, "base": space.base_repo}
        return SelectionQuery("base" if space.base_repo else "all", "space", values)


def create(database: Database, selection: ReindexSelection) -> Reindex:
    """Create a reindex. Raises `SpaceNotFound`, and `ReindexActive` while another reindex is running or ready."""
    with database.transaction() as session:
        reindexes.lock_start(session)
        if (other := reindexes.find_active(session)) is not None:
            raise ReindexActive(f"Reindex {other.id} is {other.state}: cut over, roll back or cancel it first.")
        selection.query(session, [])
        return reindexes.create(session, selection.as_dict())


def list_page(database: Database, *, before: int | None, limit: int) -> list[Reindex]:
    """Up to `limit` reindexes with an id below `before`, newest first."""
    with database.transaction() as session:
        return reindexes.list_page(session, before=before, limit=limit)


def queue_page(database: Database, reindex_id: int, contract: Sequence[Space]) -> bool:
    """Create a page of jobs for the current revisions of selected models. False if the reindex is past this stage.

    The first page stores the contract of this worker as that of the reindex, and counts the selected models.
    """
    with database.transaction() as session:
        row = reindexes.get(session, reindex_id, lock=True)
        if row.state != ReindexState.RUNNING or row.stage != Stage.QUEUEING:
            return False
        if row.contract is None:
            row.contract = describe_contract(contract)
        query = ReindexSelection.from_row(row).query(session, row.contract)
        if row.total is None:
            row.total = reindexes.count_selected(session, query)
        candidates = reindexes.list_candidates(session, query, row.cursor, CANDIDATES_PER_PAGE)
        selected = [candidate for candidate in candidates if candidate.selected]
        page, rest = selected[:JOBS_PER_PAGE], selected[JOBS_PER_PAGE:]
        by_id = models.get_by_ids(session, [candidate.model_id for candidate in page])
        for number, candidate in enumerate(page):
            model, notify = by_id[candidate.model_id], number < MAX_MESSAGES_PER_PAGE
            job, created = enqueue(session, model, candidate.sha, Priority.CRAWL, notify=notify, reindex_id=row.id)
            row.queued += created
            row.quarantined += not created and job.reindex_id != row.id
        if rest:
            row.cursor = rest[0].model_id - 1
        elif candidates:
            row.cursor = candidates[-1].model_id
        if len(candidates) < CANDIDATES_PER_PAGE and not rest:
            row.stage = Stage.MEASURING
    return True


def finish_measuring(database: Database, reindex_id: int) -> bool:
    """Advance to the backfill once every job has ended. False while some are queued or running."""
    with database.transaction() as session:
        if reindexes.has_active_jobs(session, reindex_id):
            return False
        row = reindexes.get(session, reindex_id, lock=True)
        if row.state != ReindexState.RUNNING or row.stage != Stage.MEASURING:
            return False
        row.stage = Stage.BACKFILLING
    return True


def backfill_spaces(database: Database, reindex_id: int) -> bool:
    """Copy a page of vectors that the new spaces lack and other spaces of the same contract have. Their models were not
    selected, failed, or were added since. False if there are none, so the artifacts of the new spaces can be built.
    """
    with database.transaction(timeouts=False) as session:
        feed.lock_feed(session)  # before any row of a model, in the order of every writer of vectors
        row = reindexes.get(session, reindex_id, lock=True)
        pairs = backfill.list_space_pairs(session, reindex_id)
        if backfill_page(session, row, pairs):
            return True
        if row.state == ReindexState.RUNNING and row.stage == Stage.BACKFILLING:
            row.stage, row.required_seq = Stage.BUILDING, feed.last_seq(session)
            if not pairs:  # its models had never been indexed, so they were stored in the serving spaces
                row.state, row.stage = ReindexState.CUT_OVER, None
                row.finished_at = row.cut_over_at = NOW
    return False


def backfill_page(session: Session, row: Reindex, pairs: Sequence[SpacePair]) -> bool:
    """Copy one page of vectors. True if there may be more. The caller holds `feed.lock_feed` and the row's lock."""
    for pair in pairs:
        if pair.new is None:
            continue
        for source in _backfill_sources(session, pair.new):
            key = f"{source.id}-{pair.new.id}"
            after = row.positions.get(key, 0)
            page = backfill.copy_page(session, source, pair.new, row.id, after=after, limit=VECTORS_PER_PAGE)
            if page.seq != after:
                row.positions = {**row.positions, key: page.seq}
                row.backfilled += page.copied
                session.flush()
            if page.more:
                return True
    return False


def _backfill_sources(session: Session, target: SpaceRow) -> list[SpaceRow]:
    """The other spaces of the same contract, the serving one first."""
    return [space for space in spaces.list_editions(session, spaces.to_space(target)) if space.id != target.id]


def discard_page(database: Database, reindex_id: int) -> bool:
    """Cancel a page of a reindex's jobs, or discard a page of its vectors. False if nothing is left."""
    with database.transaction() as session:
        if reindexes.cancel_jobs(session, reindex_id, VECTORS_PER_PAGE):
            return True
    with database.transaction() as session:
        feed.lock_feed(session)
        if backfill.discard_page(session, reindex_id, VECTORS_PER_PAGE):
            return True
        row = reindexes.get(session, reindex_id, lock=True)
        row.stage = None
    return False
