"""What has to be made of a reindex's new spaces before they may serve: whatever the old ones have."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection
from sqlalchemy.orm import Session

from catalog.clusters.parameters import Parameters
from catalog.clusters.repository import runs as cluster_runs
from catalog.database import NOW, Database, after_commit
from catalog.index import repository as snapshots
from catalog.maps import repository as maps
from catalog.models.repository import models
from catalog.queue import CLUSTERS_FIT, MAP_DRAW, ring_build, ring_fit
from catalog.reindexes.drift import Drift, drift
from catalog.reindexes.repository import backfill, reindexes
from catalog.reindexes.repository.backfill import Pair
from catalog.reindexes.repository.reindexes import Failures
from catalog.tables import JobState, Reindex, ReindexState, SpaceRow, Stage
from catalog.vectors import refresh_policy
from catalog.vectors.repository import stream as vector_stream

COMPARED = 1_000  # models that a drift report rests on at most
SEED = 0


@dataclass(frozen=True)
class Missing:
    """What is still to be made of a space: `index`, `clusters` or `map`."""

    space: SpaceRow
    part: str


def missing(session: Session, row: Reindex, pairs: list[Pair], exact_bytes: int) -> list[Missing]:
    """What the new spaces lack that would be there without the switch."""
    return [Missing(pair.new, part) for pair in pairs if pair.new for part in _missing(session, row, pair, exact_bytes)]


def _missing(session: Session, row: Reindex, pair: Pair, exact_bytes: int) -> list[str]:
    old, new, floor = pair.old, pair.new, row.settled_seq
    if new is None:
        return []
    parts = []
    # what was settled, or all that the space holds: it may have got nothing since long before
    covered = min(floor or 0, vector_stream.covered(session, new.id))
    enough = exact_bytes // (4 * new.dimension) + 1
    if not snapshots.newest(session, [new.id]) and backfill.at_least(session, new.id, enough):
        parts.append("index")
    run = cluster_runs.current(session, new.id)
    if old and cluster_runs.current(session, old.id) and (run is None or (run.covered_seq or 0) < covered):
        parts.append("clusters")
    drawn = maps.newest(session, new.id)
    if old and maps.newest(session, old.id) and (drawn is None or drawn.covered_seq < covered):
        parts.append("map")
    return parts


def build(database: Database, reindex_id: int, exact_bytes: int) -> bool:
    """Ask for what is missing; once nothing is, the reindex is ready, with its report. True when it became so."""
    with database.transaction() as session:
        row = reindexes.get(session, reindex_id)
        pairs = backfill.pairs(session, reindex_id)
        lacking = missing(session, row, pairs, exact_bytes)
        for each in lacking:
            _ask(session, each)
        if lacking:
            return False
        told = report(database, session, row, pairs)
        values = {"stage": None, "report": told, "ready_at": NOW}
        return row.stage == Stage.BUILDING and reindexes.change(
            session, reindex_id, (ReindexState.RUNNING,), ReindexState.READY, **values
        )


def _ask(session: Session, lacking: Missing) -> None:
    """Not before its time where the last try failed: those who make them say when that is."""
    space_id, pause = lacking.space.id, {"rest": 0.0, "after_failure": refresh_policy.AFTER_FAILURE}
    if lacking.part == "index":
        after_commit(session, lambda: ring_build(space_id))
    elif lacking.part == "map" and space_id in maps.covered(session, **pause):
        after_commit(session, lambda: ring_fit(MAP_DRAW, space_id))
    elif lacking.part == "clusters":
        if space_id in cluster_runs.covered(session, **pause):
            default = Parameters()
            cluster_runs.ask(
                session,
                space_id,
                algorithm=default.algorithm,
                parameters=default.as_dict(),
                asked_by="reindex",
            )
        after_commit(session, lambda: ring_fit(CLUSTERS_FIT, space_id))


@dataclass(frozen=True)
class Compared:
    """The drift between two spaces, the names of the models that moved most, and the share of their neighbours kept."""

    drift: Drift
    most: list[tuple[str, float]]


def compared(database: Database, session: Session, pair: Pair) -> Compared | None:
    """Of a seeded sample of the models that move their base in both spaces; None where there are too few."""
    if pair.old is None or pair.new is None:
        return None
    ids = backfill.sample(session, pair.new.id, COMPARED, SEED)
    with database.reading() as connection:
        mine, new = _of(connection, pair.new, ids)
        theirs, old = _of(connection, pair.old, ids)
    both = sorted(mine.keys() & theirs.keys())
    if not both:
        return None
    found = drift(old[[theirs[each] for each in both]], new[[mine[each] for each in both]])
    if found is None:
        return None
    named = models.by_ids(session, [both[place] for place in found.most])
    most = [(named[both[place]].repo_id, found.overlaps[place]) for place in found.most if both[place] in named]
    return Compared(found, most)


def _of(connection: Connection, space: SpaceRow, ids: list[int]) -> tuple[dict[int, int], np.ndarray]:
    found, rows = vector_stream.newest_of(connection, space.id, space.dimension, np.array(ids, np.int64))
    return {model_id: place for place, model_id in enumerate(found.tolist())}, rows


def report(database: Database, session: Session, row: Reindex, pairs: list[Pair]) -> list[dict[str, Any]]:
    """Of each pair the spaces' keys, what would be lost, and the drift; JSON."""
    return [_told(database, session, row, pair) for pair in pairs if pair.new]


def _told(database: Database, session: Session, row: Reindex, pair: Pair) -> dict[str, Any]:
    assert pair.new is not None
    gone, found = backfill.lost(session, pair, row.id), compared(database, session, pair)
    told: dict[str, Any] | None = None
    if found is not None:
        told = asdict(found.drift)
        del told["overlaps"]
        told["most"] = [{"repo_id": repo_id, "overlap": overlap} for repo_id, overlap in found.most]
    return {
        "feature": pair.new.feature,
        "base": pair.new.base_repo,
        "old": pair.old.key if pair.old else None,
        "new": pair.new.key,
        "lost": asdict(gone),
        "drift": told,
    }


def drift_report(database: Database, reindex_id: int) -> tuple[bool, list[dict[str, Any]]]:
    """What was found when it became ready (true); before that, of what is measured so far. Raises `ReindexNotFound`."""
    with database.transaction() as session:
        row = reindexes.get(session, reindex_id)
        if row.report is not None:
            return True, row.report
        return False, report(database, session, row, backfill.pairs(session, reindex_id))


def parts_left(database: Database, reindex_id: int, exact_bytes: int) -> list[dict[str, str]]:
    """What is still to be built of which space, for people."""
    with database.transaction() as session:
        return _parts_left(session, reindexes.get(session, reindex_id), exact_bytes)


def _parts_left(session: Session, row: Reindex, exact_bytes: int) -> list[dict[str, str]]:
    if row.stage != Stage.BUILDING:
        return []
    found = missing(session, row, backfill.pairs(session, row.id), exact_bytes)
    return [{"space": each.space.key, "part": each.part} for each in found]


@dataclass(frozen=True)
class Progress:
    """A reindex, its jobs by state, those that failed by their error, and what is still to be built."""

    reindex: Reindex
    jobs: dict[JobState, int]
    failures: list[Failures]
    parts_left: list[dict[str, str]]


def progress(database: Database, reindex_id: int, exact_bytes: int) -> Progress:
    """Raises `ReindexNotFound`."""
    with database.transaction() as session:
        row = reindexes.get(session, reindex_id)
        return Progress(
            row,
            reindexes.job_counts(session, reindex_id),
            reindexes.failures(session, reindex_id),
            _parts_left(session, row, exact_bytes),
        )
