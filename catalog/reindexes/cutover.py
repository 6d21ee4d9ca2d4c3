"""How a reindex ends: the new spaces serve, or what was measured is thrown away, or the old spaces serve again."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from catalog.clusters.repository import members as cluster_members
from catalog.clusters.repository import runs as cluster_runs
from catalog.database import NOW, Database
from catalog.errors import ReindexIncomplete, ReindexNotReady, ReindexOver
from catalog.reindexes.readiness import missing
from catalog.reindexes.repository import backfill, reindexes
from catalog.reindexes.repository.backfill import Pair
from catalog.reindexes.service import CARRIED, carry, carry_page
from catalog.spaces import repository as spaces
from catalog.tables import ACTIVE_REINDEX, Reindex, ReindexState, SpaceRow, Stage
from catalog.vectors.repository import feed

RUNNING, READY, SWITCHED = ReindexState.RUNNING, ReindexState.READY, ReindexState.SWITCHED


def switch(database: Database, reindex_id: int, *, force: bool = False, exact_bytes: int) -> Reindex:
    """Have the new spaces serve in place of the old ones, in one transaction. The old ones are kept.

    Raises `ReindexNotFound`, `ReindexOver`; `ReindexNotReady` before it is ready, and `ReindexIncomplete` where models
    that are found now would not be found any more. Neither unfinished building nor lost models stand in the way of
    `force`.
    """
    with database.transaction() as session:
        _may_switch(session, reindexes.get(session, reindex_id), force, exact_bytes)
    while carry(database, reindex_id):  # most of what came meanwhile, while others may write in between
        pass
    with database.transaction() as session:
        feed.lock_feed(session)
        row = reindexes.get(session, reindex_id, lock=True)
        _may_switch(session, row, force, exact_bytes)
        found = backfill.pairs(session, reindex_id)
        while carry_page(session, row, found):
            pass
        _lose(session, row, found, force)
        _serve(session, row, found)
        row.switched = [{"old": _id(pair.old), "new": _id(pair.new)} for pair in found]
        row.switched_seq = feed.last_seq(session)
        row.state, row.stage = SWITCHED, None
        row.switched_at = row.finished_at = NOW
        session.flush()
        return reindexes.get(session, reindex_id)


def cancel(database: Database, reindex_id: int) -> Reindex:
    """End one that has not switched: its jobs end, what it measured is thrown away. Raises `ReindexNotFound`,
    `ReindexOver`.
    """
    return _throw_away(database, reindex_id, ReindexState.CANCELLED)


def roll_back(database: Database, reindex_id: int, *, force: bool = False) -> Reindex:
    """After the switch the old spaces serve again, and the new ones are kept; before it as `cancel`.

    Models that came since are carried over where the contract is the same; where it is not they would be lost, which
    `force` allows. Raises `ReindexNotFound`, `ReindexOver` where another reindex has switched since, and
    `ReindexIncomplete`.
    """
    with database.transaction() as session:
        if reindexes.get(session, reindex_id).state == SWITCHED:
            feed.lock_feed(session)
            return _switch_back(session, reindexes.get(session, reindex_id, lock=True), force)
    return _throw_away(database, reindex_id, ReindexState.ROLLED_BACK)


def _switch_back(session: Session, row: Reindex, force: bool) -> Reindex:
    if row.state != SWITCHED:
        raise ReindexOver(f"Reindex {row.id} is {row.state}.")
    back = [Pair(_row(session, each["new"]), _row(session, each["old"])) for each in row.switched or []]
    if any(pair.old is None or not pair.old.serving for pair in back):
        raise ReindexOver(f"Another reindex has switched since reindex {row.id}: roll that one back first.")
    for pair in back:
        _carry_back(session, pair, row)
    _lose(session, row, back, force)
    _serve(session, row, back)
    row.state, row.finished_at = ReindexState.ROLLED_BACK, NOW
    session.flush()
    return reindexes.get(session, row.id)


def _carry_back(session: Session, pair: Pair, row: Reindex) -> None:
    """What came since the switch goes to the old space, too, where it is of the same contract."""
    if pair.old is None or pair.new is None or pair.new.id not in {
        each.id for each in spaces.editions(session, spaces.contract_of(pair.old))
    }:  # fmt: skip
        return
    after, more = row.switched_seq or 0, True
    while more:
        done = backfill.carry(session, pair.old, pair.new, row.id, after=after, limit=CARRIED)
        after, more = done.seq, done.more


def _may_switch(session: Session, row: Reindex, force: bool, exact_bytes: int) -> None:
    if row.state == READY:
        if reindexes.any_job_active(session, row.id) and not force:
            raise ReindexNotReady(f"Jobs of reindex {row.id} run again: wait for them, or switch with force.")
        return
    if row.state != RUNNING:
        raise ReindexOver(f"Reindex {row.id} is {row.state}: there is nothing to switch to.")
    if row.stage != Stage.BUILDING:
        raise ReindexNotReady(f"Reindex {row.id} is {row.stage}: it can be switched to once all is measured.")
    if not force:
        parts = sorted({each.part for each in missing(session, row, backfill.pairs(session, row.id), exact_bytes)})
        raise ReindexNotReady(
            f"Reindex {row.id} is building ({', '.join(parts) or 'its report'}): wait, or switch with force and do "
            "without for a while."
        )


def _lose(session: Session, row: Reindex, found: Sequence[Pair], force: bool) -> None:
    gone = [(pair, backfill.lost(session, pair, row.id)) for pair in found]
    count = sum(each.count for _, each in gone)
    if count and not force:
        names = ", ".join(dict.fromkeys(name for _, each in gone for name in each.repo_ids[:5]))
        raise ReindexIncomplete(
            f"{count} vectors of models that are found now have none of the other contract, so these models would not "
            f"be found any more: {names}{', ...' if count > 5 else ''}. Measure them too (a reindex of all or of the "
            "base), or do without them with force."
        )


def _serve(session: Session, row: Reindex, found: Sequence[Pair]) -> None:
    for pair in found:
        backfill.serve(session, pair)
    both = [each.id for pair in found for each in (pair.old, pair.new) if each is not None]
    backfill.swap_bases(session, row.id, both)
    now = [pair.new for pair in found if pair.new is not None]
    backfill.set_states(session, [each.id for each in now])
    for space in now:
        run = cluster_runs.current(session, space.id)
        if run is not None and spaces.leads(session, space):
            cluster_members.show(session, run.id, space.id)


def _throw_away(database: Database, reindex_id: int, state: ReindexState) -> Reindex:
    """From this commit on nothing more is stored of it; workers end its jobs and clear its spaces, page by page."""
    with database.transaction() as session:
        row = reindexes.get(session, reindex_id)
        states = (*ACTIVE_REINDEX, ReindexState.FAILED)
        values = {"stage": Stage.DISCARDING, "finished_at": NOW}
        if not reindexes.change(session, reindex_id, states, state, **values):
            raise ReindexOver(f"Reindex {reindex_id} is {row.state}.")
        return reindexes.get(session, reindex_id)


def _id(space: SpaceRow | None) -> int | None:
    return space.id if space else None


def _row(session: Session, space_id: int | None) -> SpaceRow | None:
    return session.get(SpaceRow, space_id, populate_existing=True) if space_id is not None else None
