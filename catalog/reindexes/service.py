"""Reindexes: models measured anew beside what answers now. Asked for here, and worked on page by page.

A step is one transaction that checks where the row stands, does a page of work and moves the row on. Whatever dies
before its commit has done nothing; `workers/maintenance/reindexer.py` takes the steps, and
`catalog/reindexes/cutover.py` ends them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from sqlalchemy.orm import Session

from catalog.database import NOW, Database
from catalog.errors import InvalidInput, ReindexActive
from catalog.jobs.repository import claims
from catalog.jobs.submissions import enqueue
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import models
from catalog.queue import ring_after_commit
from catalog.reindexes.repository import backfill, reindexes
from catalog.reindexes.repository.backfill import Pair
from catalog.reindexes.repository.reindexes import Selected
from catalog.spaces import repository as spaces
from catalog.spaces.contract import Space, contract_told
from catalog.tables import ModelState, Priority, Reindex, ReindexState, SpaceRow, Stage
from catalog.vectors.repository import feed

LOOKED_AT = 500  # models that a page looks at
PAGE = 100  # jobs that it makes at most
CARRIED = 500  # vectors that are copied, or become tombstones, in one transaction
RINGS_A_PAGE = 16  # one bell is enough for a worker to go through all that waits


@dataclass(frozen=True)
class Selection:
    """Which models, exactly one of: `everything`, those of a `base`, of a `space` (its key), in a `state`, and the
    `outdated` ones, which were not measured under what the workers measure now. Raises `InvalidInput`, `InvalidRepoId`.
    """

    everything: bool = False
    base: str | None = None
    space: str | None = None
    state: str | None = None
    outdated: bool = False

    def __post_init__(self) -> None:
        if len(self.stored()) != 1:
            raise InvalidInput("Give exactly one of all, base, space, state and outdated.")
        if self.base is not None:
            RepoRef(self.base)
        if self.state is not None and self.state not in (ModelState.INDEXED, ModelState.NO_SHIFT, ModelState.FAILED):
            raise InvalidInput("A state to reindex is one of indexed, no_shift and failed.")

    def stored(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def of(cls, row: Reindex) -> Self:
        return cls(**row.selection)

    def selected(self, session: Session, contract: Sequence[Mapping[str, Any]]) -> Selected:
        """Raises `SpaceNotFound`."""
        if self.base is not None:
            return Selected("base", "embedded", {"base": self.base})
        if self.state is not None:
            return Selected("state", "any", {"state": self.state})
        if self.outdated:
            return Selected("all", "outdated", {"contract": reindexes.contract_json(contract)})
        if self.space is None:
            return Selected("all", "embedded", {})
        space = spaces.get(session, self.space)
        values = {"space_id": space.id, "base": space.base_repo}
        return Selected("base" if space.base_repo else "all", "space", values)


def start(database: Database, selection: Selection) -> Reindex:
    """Raises `SpaceNotFound`, and `ReindexActive` while another one runs or waits for its switch."""
    with database.transaction() as session:
        reindexes.lock_start(session)
        if (other := reindexes.active(session)) is not None:
            raise ReindexActive(f"Reindex {other.id} is {other.state}: switch to it, roll it back or cancel it first.")
        selection.selected(session, [])
        return reindexes.add(session, selection.stored())


def page(database: Database, *, before: int | None, limit: int) -> list[Reindex]:
    """Up to `limit` reindexes with an id below `before`, the newest first."""
    with database.transaction() as session:
        return reindexes.page(session, before=before, limit=limit)


def queue(database: Database, reindex_id: int, contract: Sequence[Space]) -> bool:
    """Make a page of jobs for current revisions. The first page keeps what this worker measures as the reindex's
    contract, and counts its models. False where it is at another stage by now.
    """
    with database.transaction() as session:
        row = reindexes.get(session, reindex_id, lock=True)
        if row.state != ReindexState.RUNNING or row.stage != Stage.QUEUEING:
            return False
        if row.contract is None:
            row.contract = contract_told(contract)
        selected = Selection.of(row).selected(session, row.contract)
        if row.total is None:
            row.total = reindexes.count(session, selected)
        found = reindexes.candidates(session, selected, row.cursor, LOOKED_AT)
        wanted = [each for each in found if each.wanted]
        page, left = wanted[:PAGE], wanted[PAGE:]
        named = models.by_ids(session, [each.model_id for each in page])
        for place, each in enumerate(page):
            model, ring = named[each.model_id], place < RINGS_A_PAGE
            job, made = enqueue(session, model, each.sha, Priority.CRAWL, ring=ring, reindex_id=row.id)
            row.queued += made
            row.quarantined += not made and job.reindex_id != row.id
        row.cursor = left[0].model_id - 1 if left else found[-1].model_id if found else row.cursor
        if len(found) < LOOKED_AT and not left:
            row.stage = Stage.MEASURING
    return True


def await_jobs(database: Database, reindex_id: int) -> bool:
    """Go on to the next stage once every job has ended. False while some have not."""
    with database.transaction() as session:
        if reindexes.any_job_active(session, reindex_id):
            return False
        return _to(session, reindex_id, Stage.MEASURING, Stage.CARRYING)


def carry(database: Database, reindex_id: int) -> bool:
    """Copy a page of what the new spaces lack and other spaces of the same contract have: models that were not
    selected, failed, or came meanwhile. False where there was nothing; then the new spaces can be built.
    """
    with database.transaction() as session:
        feed.lock_feed(session)  # before any row of a model: whoever stores a vector has it first, too
        row = reindexes.get(session, reindex_id, lock=True)
        found = backfill.pairs(session, reindex_id)
        if carry_page(session, row, found):
            return True
        if row.state == ReindexState.RUNNING and row.stage == Stage.CARRYING:
            row.stage, row.settled_seq = Stage.BUILDING, feed.last_seq(session)
            if not found:  # its models were not indexed before: they are where all others are
                row.state, row.stage = ReindexState.SWITCHED, None
                row.finished_at = row.switched_at = NOW
    return False


def carry_page(session: Session, row: Reindex, found: Sequence[Pair]) -> bool:
    """Whether there may be more. The caller holds `vectors.lock_feed` and the row."""
    for pair in found:
        for source in sources(session, pair.new):
            place = f"{source.id}-{pair.new.id}" if pair.new else ""
            after = row.positions.get(place, 0)
            done = backfill.carry(session, source, pair.new, row.id, after=after, limit=CARRIED)  # type: ignore[arg-type]
            if done.seq != after:
                row.positions = {**row.positions, place: done.seq}
                row.carried += done.copied
                session.flush()
            if done.more:
                return True
    return False


def sources(session: Session, space: SpaceRow | None) -> list[SpaceRow]:
    """The spaces of the same contract, the one that serves first."""
    if space is None:
        return []
    return [each for each in spaces.editions(session, spaces.contract_of(space)) if each.id != space.id]


def discard(database: Database, reindex_id: int) -> bool:
    """End a page of a reindex's jobs, then a page of what it measured. False where nothing is left."""
    with database.transaction() as session:
        if reindexes.cancel_jobs(session, reindex_id, CARRIED):
            return True
    with database.transaction() as session:
        feed.lock_feed(session)
        if backfill.discard(session, reindex_id, CARRIED):
            return True
        row = reindexes.get(session, reindex_id, lock=True)
        row.stage = None
    return False


def ring(database: Database) -> None:
    """Have a worker look for jobs: the bells of later pages may have been answered already."""
    with database.transaction() as session:
        if (waiting := claims.oldest_due(session)) is not None:
            ring_after_commit(session, waiting)


def _to(session: Session, reindex_id: int, stage: Stage, following: Stage) -> bool:
    row = reindexes.get(session, reindex_id, lock=True)
    if row.state != ReindexState.RUNNING or row.stage != stage:
        return False
    row.stage = following
    return True
