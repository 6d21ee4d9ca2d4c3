"""The artifacts that the new spaces of a reindex need before they may serve: the index, clusters and map."""

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
from catalog.queue import CLUSTERS_FIT, MAP_BUILD, enqueue_build, enqueue_fit
from catalog.reindexes.drift import Drift, measure_drift
from catalog.reindexes.repository import backfill, reindexes
from catalog.reindexes.repository.backfill import SpacePair
from catalog.reindexes.repository.reindexes import JobFailures
from catalog.tables import JobState, Reindex, ReindexState, SpaceRow, Stage
from catalog.vectors import refresh_policy
from catalog.vectors.repository import stream as vector_stream

SAMPLE_SIZE = 1_000  # models that a drift report compares at most
SEED = 0


@dataclass(frozen=True)
class MissingArtifact:
    """An artifact that must still be built for a space. `kind` is `index`, `clusters` or `map`."""

    space: SpaceRow
    kind: str


def missing_artifacts(
    session: Session, row: Reindex, pairs: list[SpacePair], exact_bytes: int
) -> list[MissingArtifact]:
    """The artifacts that the old spaces have and the new spaces lack, so that a cutover would lose them."""
    return [
        MissingArtifact(pair.new, kind)
        for pair in pairs
        if pair.new
        for kind in _missing_kinds(session, row, pair, exact_bytes)
    ]


def _missing_kinds(session: Session, row: Reindex, pair: SpacePair, exact_bytes: int) -> list[str]:
    old, new = pair.old, pair.new
    if new is None:
        return []
    kinds = []
    # no later than the last change of the space, which may be long ago
    required = min(row.required_seq or 0, vector_stream.last_seq_of_space(session, new.id))
    max_exact_vectors = exact_bytes // (4 * new.dimension)
    if not snapshots.list_newest(session, [new.id]) and backfill.has_at_least(session, new.id, max_exact_vectors + 1):
        kinds.append("index")
    run = cluster_runs.find_current(session, new.id)
    if old and cluster_runs.find_current(session, old.id) and (run is None or (run.covered_seq or 0) < required):
        kinds.append("clusters")
    newest_map = maps.find_newest(session, new.id)
    if old and maps.find_newest(session, old.id) and (newest_map is None or newest_map.covered_seq < required):
        kinds.append("map")
    return kinds


def make_ready(database: Database, reindex_id: int, exact_bytes: int) -> bool:
    """Request the missing artifacts; once none is missing, store the report and mark the reindex as ready.

    True if this call made it ready.
    """
    with database.transaction() as session:
        row = reindexes.get(session, reindex_id)
        pairs = backfill.list_space_pairs(session, reindex_id)
        missing = missing_artifacts(session, row, pairs, exact_bytes)
        for artifact in missing:
            _request(session, artifact)
        if missing:
            return False
        report = create_report(database, session, row, pairs)
        values = {"stage": None, "report": report, "ready_at": NOW}
        return row.stage == Stage.BUILDING and reindexes.set_state(
            session, reindex_id, (ReindexState.RUNNING,), ReindexState.READY, **values
        )


def _request(session: Session, artifact: MissingArtifact) -> None:
    """Enqueue the artifact. A map or a cluster run that failed is requested again only after `RETRY_DELAY` seconds."""
    space_id, pause = artifact.space.id, {"cooldown_factor": 0.0, "retry_delay": refresh_policy.RETRY_DELAY}
    if artifact.kind == "index":
        after_commit(session, lambda: enqueue_build(space_id))
    elif artifact.kind == "map" and space_id in maps.list_refreshable(session, **pause):
        after_commit(session, lambda: enqueue_fit(MAP_BUILD, space_id))
    elif artifact.kind == "clusters":
        if space_id in cluster_runs.list_refreshable(session, **pause):
            default = Parameters()
            cluster_runs.create(
                session,
                space_id,
                algorithm=default.algorithm,
                parameters=default.as_dict(),
                requested_by="reindex",
            )
        after_commit(session, lambda: enqueue_fit(CLUSTERS_FIT, space_id))


@dataclass(frozen=True)
class SpaceDrift:
    """The drift between two spaces, and the repo ids and overlaps of the models that changed most."""

    drift: Drift
    most_changed: list[tuple[str, float]]


def compare_spaces(database: Database, session: Session, pair: SpacePair) -> SpaceDrift | None:
    """Measure the drift of a seeded sample of the models that shift their base in both spaces; None for too few."""
    if pair.old is None or pair.new is None:
        return None
    ids = backfill.sample_models(session, pair.new.id, SAMPLE_SIZE, SEED)
    with database.autocommit() as connection:
        new_rows, new = _load_vectors(connection, pair.new, ids)
        old_rows, old = _load_vectors(connection, pair.old, ids)
    model_ids = sorted(new_rows.keys() & old_rows.keys())
    if not model_ids:
        return None
    drift = measure_drift(old[[old_rows[id] for id in model_ids]], new[[new_rows[id] for id in model_ids]])
    if drift is None:
        return None
    changed = {model_ids[row]: drift.overlaps[row] for row in drift.most_changed}
    by_id = models.get_by_ids(session, list(changed))
    return SpaceDrift(drift, [(by_id[id].repo_id, overlap) for id, overlap in changed.items() if id in by_id])


def _load_vectors(connection: Connection, space: SpaceRow, ids: list[int]) -> tuple[dict[int, int], np.ndarray]:
    """The row of each model that has a vector in the space, and the vectors (n, d)."""
    model_ids, vectors = vector_stream.newest_vectors(connection, space.id, space.dimension, np.array(ids, np.int64))
    return {model_id: row for row, model_id in enumerate(model_ids.tolist())}, vectors


def create_report(database: Database, session: Session, row: Reindex, pairs: list[SpacePair]) -> list[dict[str, Any]]:
    """The drift report as JSON: for each pair of spaces their keys, the lost models and the drift."""
    return [_pair_report(database, session, row, pair) for pair in pairs if pair.new]


def _pair_report(database: Database, session: Session, row: Reindex, pair: SpacePair) -> dict[str, Any]:
    assert pair.new is not None
    lost, comparison = backfill.find_lost_models(session, pair, row.id), compare_spaces(database, session, pair)
    drift: dict[str, Any] | None = None
    if comparison is not None:
        drift = asdict(comparison.drift)
        del drift["overlaps"]
        drift["most_changed"] = [{"repo_id": repo_id, "overlap": share} for repo_id, share in comparison.most_changed]
    return {
        "feature": pair.new.feature,
        "base": pair.new.base_repo,
        "old": pair.old.key if pair.old else None,
        "new": pair.new.key,
        "lost_models": asdict(lost),
        "drift": drift,
    }


def get_drift_report(database: Database, reindex_id: int) -> tuple[bool, list[dict[str, Any]]]:
    """Whether the drift report is final, and the report: the stored one of a reindex that became ready, or else one of
    the models that have been measured so far. Raises `ReindexNotFound`.
    """
    with database.transaction(timeouts=False) as session:
        row = reindexes.get(session, reindex_id)
        if row.report is not None:
            return True, row.report
        return False, create_report(database, session, row, backfill.list_space_pairs(session, reindex_id))


def list_missing_artifacts(database: Database, reindex_id: int, exact_bytes: int) -> list[dict[str, str]]:
    """The missing artifacts and their spaces, as JSON. Raises `ReindexNotFound`."""
    with database.transaction() as session:
        return _list_missing_artifacts(session, reindexes.get(session, reindex_id), exact_bytes)


def _list_missing_artifacts(session: Session, row: Reindex, exact_bytes: int) -> list[dict[str, str]]:
    if row.stage != Stage.BUILDING:
        return []
    missing = missing_artifacts(session, row, backfill.list_space_pairs(session, row.id), exact_bytes)
    return [{"space": artifact.space.key, "kind": artifact.kind} for artifact in missing]


@dataclass(frozen=True)
class Progress:
    """A reindex with its jobs counted by state, its failures by error code, and the artifacts still to be built."""

    reindex: Reindex
    jobs: dict[JobState, int]
    failures: list[JobFailures]
    missing_artifacts: list[dict[str, str]]


def get_progress(database: Database, reindex_id: int, exact_bytes: int) -> Progress:
    """A reindex and its progress. Raises `ReindexNotFound`."""
    with database.transaction(timeouts=False) as session:
        row = reindexes.get(session, reindex_id)
        return Progress(
            row,
            reindexes.count_jobs(session, reindex_id),
            reindexes.list_failures(session, reindex_id),
            _list_missing_artifacts(session, row, exact_bytes),
        )
