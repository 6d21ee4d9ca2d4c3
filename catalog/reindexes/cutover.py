"""The ends of a reindex: cut over to the new spaces, cancel, or roll back."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from catalog.database import NOW, Database
from catalog.errors import ReindexFinished, ReindexIncomplete, ReindexNotReady
from catalog.reindexes.readiness import missing_artifacts
from catalog.reindexes.repository import backfill, reindexes
from catalog.reindexes.repository.backfill import SpacePair
from catalog.reindexes.service import VECTORS_PER_PAGE, backfill_page, backfill_spaces
from catalog.spaces import repository as spaces
from catalog.tables import ACTIVE_REINDEX, Reindex, ReindexState, SpaceRow, Stage
from catalog.vectors.repository import feed


def cut_over(database: Database, reindex_id: int, *, force: bool = False, exact_bytes: int) -> Reindex:
    """Make the new spaces serve in place of the old ones, in one transaction. The old ones are kept.

    Raises `ReindexNotFound`, `ReindexFinished`, `ReindexNotReady` before the reindex is ready, and `ReindexIncomplete`
    if searches would lose models. `force` overrides artifacts that are still being built and lost models.
    """
    with database.transaction() as session:
        _check_ready(session, reindexes.get(session, reindex_id), force, exact_bytes)
    while backfill_spaces(database, reindex_id):  # most of the new vectors, in transactions that let others write
        pass
    with database.transaction(timeouts=False) as session:
        feed.lock_feed(session)
        row = reindexes.get(session, reindex_id, lock=True)
        _check_ready(session, row, force, exact_bytes)
        pairs = backfill.list_space_pairs(session, reindex_id)
        while backfill_page(session, row, pairs):
            pass
        _check_lost_models(session, row, pairs, force)
        _serve(session, row, pairs)
        row.cutover_spaces = [{"old": _id(pair.old), "new": _id(pair.new)} for pair in pairs]
        row.cutover_seq = feed.last_seq(session)
        row.state, row.stage = ReindexState.CUT_OVER, None
        row.cut_over_at = row.finished_at = NOW
        session.flush()
        return reindexes.get(session, reindex_id)


def cancel(database: Database, reindex_id: int) -> Reindex:
    """Cancel a reindex before its cutover: its jobs are cancelled, and the vectors it measured are discarded.

    Raises `ReindexNotFound` and `ReindexFinished`.
    """
    return _discard(database, reindex_id, ReindexState.CANCELLED)


def roll_back(database: Database, reindex_id: int, *, force: bool = False) -> Reindex:
    """Make the old spaces serve again, and keep the new ones. Before the cutover, do the same as `cancel`.

    Vectors stored since the cutover are backfilled if the contract is the same. Under another contract their models
    would be lost, which `force` allows. Raises `ReindexNotFound`, `ReindexFinished` if another reindex has cut over
    since, and `ReindexIncomplete`.
    """
    with database.transaction(timeouts=False) as session:
        if reindexes.get(session, reindex_id).state == ReindexState.CUT_OVER:
            feed.lock_feed(session)
            return _roll_back(session, reindexes.get(session, reindex_id, lock=True), force)
    return _discard(database, reindex_id, ReindexState.ROLLED_BACK)


def _roll_back(session: Session, row: Reindex, force: bool) -> Reindex:
    if row.state != ReindexState.CUT_OVER:
        raise ReindexFinished(f"Reindex {row.id} is {row.state} and cannot be rolled back.")
    pairs = [
        SpacePair(old=_get_space(session, ids["new"]), new=_get_space(session, ids["old"]))
        for ids in row.cutover_spaces or []
    ]
    if any(pair.old is None or not pair.old.serving for pair in pairs):
        raise ReindexFinished(f"Another reindex has cut over since reindex {row.id}: roll that one back first.")
    if any(
        ids["old"] is not None and pair.new is None for ids, pair in zip(row.cutover_spaces or [], pairs, strict=True)
    ):
        raise ReindexFinished(f"A space that reindex {row.id} replaced was dropped, so it cannot serve again.")
    for pair in pairs:
        _backfill_since_cutover(session, pair, row)
    _check_lost_models(session, row, pairs, force)
    _serve(session, row, pairs)
    row.state, row.finished_at = ReindexState.ROLLED_BACK, NOW
    session.flush()
    return reindexes.get(session, row.id)


def _backfill_since_cutover(session: Session, pair: SpacePair, row: Reindex) -> None:
    """Copy the vectors stored since the cutover to the space that is to serve again, if the contract is the same."""
    if pair.old is None or pair.new is None:
        return
    if pair.new.id not in {space.id for space in spaces.list_editions(session, spaces.to_space(pair.old))}:
        return
    after, more = row.cutover_seq or 0, True
    while more:
        page = backfill.copy_page(session, pair.old, pair.new, row.id, after=after, limit=VECTORS_PER_PAGE)
        after, more = page.seq, page.more


def _check_ready(session: Session, row: Reindex, force: bool, exact_bytes: int) -> None:
    if row.state == ReindexState.READY:
        if reindexes.has_active_jobs(session, row.id) and not force:
            raise ReindexNotReady(
                f"Jobs of reindex {row.id} are running again: wait for them, or cut over with `force`."
            )
        return
    if row.state != ReindexState.RUNNING:
        raise ReindexFinished(f"Reindex {row.id} is {row.state}: it has no spaces to cut over to.")
    if row.stage != Stage.BUILDING:
        raise ReindexNotReady(f"Reindex {row.id} is {row.stage}: it can cut over once all models are measured.")
    if not force:
        missing = missing_artifacts(session, row, backfill.list_space_pairs(session, row.id), exact_bytes)
        kinds = ", ".join(sorted({artifact.kind for artifact in missing})) or "the drift report"
        raise ReindexNotReady(
            f"Reindex {row.id} is still building: {kinds}. Wait, or cut over with `force` before they are finished."
        )


def _check_lost_models(session: Session, row: Reindex, pairs: Sequence[SpacePair], force: bool) -> None:
    lost = [backfill.find_lost_models(session, pair, row.id) for pair in pairs]
    count = sum(models.count for models in lost)
    if count and not force:
        names = ", ".join(dict.fromkeys(name for models in lost for name in models.repo_ids[:5]))
        raise ReindexIncomplete(
            f"{count} vectors have no counterpart under the other contract, so searches would lose their models: "
            f"{names}{', ...' if count > 5 else ''}. Measure these models too (reindex all models, or all of the "
            "base), or accept the loss with `force`."
        )


def _serve(session: Session, row: Reindex, pairs: Sequence[SpacePair]) -> None:
    """Make the new spaces serve. Searches filter by their current cluster runs from then on."""
    for pair in pairs:
        backfill.serve(session, pair)
    both = [space.id for pair in pairs for space in (pair.old, pair.new) if space is not None]
    backfill.swap_bases(session, row.id, both)
    new_spaces = [pair.new for pair in pairs if pair.new is not None]
    backfill.update_model_states(session, [space.id for space in new_spaces])


def _discard(database: Database, reindex_id: int, state: ReindexState) -> Reindex:
    """Stop a reindex: it stores no vectors after this commit. Workers then cancel its jobs and discard its vectors."""
    with database.transaction() as session:
        row = reindexes.get(session, reindex_id)
        values = {"stage": Stage.DISCARDING, "finished_at": NOW}
        if not reindexes.set_state(session, reindex_id, (*ACTIVE_REINDEX, ReindexState.FAILED), state, **values):
            raise ReindexFinished(f"Reindex {reindex_id} is {row.state} and cannot be discarded.")
        return reindexes.get(session, reindex_id)


def _id(space: SpaceRow | None) -> int | None:
    return space.id if space else None


def _get_space(session: Session, space_id: int | None) -> SpaceRow | None:
    return session.get(SpaceRow, space_id, populate_existing=True) if space_id is not None else None
