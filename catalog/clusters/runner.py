"""Computes the clusters of a space and publishes them, in a separate process (`workers.maintenance clusters`)."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from catalog.clusters import fitting, naming, quality
from catalog.clusters.assignment import assign_to_run
from catalog.clusters.fitting import Clustering
from catalog.clusters.matching import match_to_previous
from catalog.clusters.parameters import Parameters
from catalog.clusters.repository import clusters
from catalog.clusters.repository import members as cluster_members
from catalog.clusters.repository import runs as cluster_runs
from catalog.database import Database
from catalog.errors import CatalogError, WorkerLost
from catalog.geometry import repository as geometries
from catalog.geometry import transforms
from catalog.geometry.repository import GeometryKey
from catalog.geometry.transforms import Geometry
from catalog.models.repository import models
from catalog.settings import settings
from catalog.spaces import repository as spaces
from catalog.tables import ClusterRun, SpaceRow
from catalog.vectors.repository import feed
from catalog.vectors.repository import stream as vector_stream
from catalog.vectors.unit_vectors import load_unit_vectors

MAX_RUNS_WITH_MEMBERS = 10  # runs of a space that keep their clusters and members
MAX_ATTEMPTS = 3  # at a run whose process dies
MAX_EXPLAINING_MODELS = 20_000  # models of a space that its clusters are explained by, approximately
MAX_ARRIVALS = 100_000  # changes during a run that are assigned when it is published

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClusterRunner:
    """Computes queued cluster runs, at most one per space at a time across all machines.

    Vectors that do not fit into memory go to a temporary file in `folder`.
    """

    database: Database
    folder: Path

    def run(self, space_id: int) -> int | None:
        """Compute the queued run of a space and return its id. None if no run is queued, if another process is
        computing it, or after too many attempts.

        Errors are stored with the run and raised again.
        """
        with self.database.transaction() as lock:
            if not cluster_runs.try_lock(lock, space_id):
                return None
            with self.database.transaction() as session:
                run = cluster_runs.claim(session, space_id)
                if run is None:
                    return None
                if run.attempts > MAX_ATTEMPTS:
                    error = WorkerLost(f"The process died {MAX_ATTEMPTS} times during this run. See the worker's log.")
                    cluster_runs.fail(session, run.id, error)
                    return None
                space = session.get_one(SpaceRow, space_id)
            try:
                self._run(run, space)
            except Exception as error:
                with self.database.transaction() as session:
                    cluster_runs.fail(session, run.id, error)
                raise
            return run.id

    def _run(self, run: ClusterRun, space: SpaceRow) -> None:
        started = time.monotonic()
        parameters = Parameters(run.algorithm, **run.parameters)  # type: ignore[arg-type]
        with self.database.transaction() as session:
            covered_seq = vector_stream.last_seq_of_space(session, space.id)
            model_ids, unit = load_unit_vectors(session, space, self.folder)
            bases = models.list_bases(session, model_ids.tolist()) if space.base_repo is None else None
        fitted = _fit_geometries(space, unit, bases)
        clustering = fitting.fit(unit, parameters, lambda stage: self._report_stage(run, stage))
        self._report_stage(run, "explaining")
        with self.database.transaction() as session:
            explanations = naming.explain(_representative_members(session, space, model_ids, clustering))
        self._report_stage(run, "publishing")
        with self.database.transaction() as session:
            feed.lock_feed(session)  # no vector is stored between reading the arrivals and the swap
            _publish(session, _Result(run, space, model_ids, clustering, explanations, covered_seq, started))
            if space.base_repo is not None:  # the clusters of a space that spans bases are mostly the bases
                spaces.set_unrelated_similarity(session, space.id, clustering.unrelated)
            for key, (geometry, count) in fitted.items():
                geometries.create(session, space.id, key, geometry, count)
        log.info("space %s: %s clusters of %s models", space.id, len(clustering.centroids), len(model_ids))

    def _report_stage(self, run: ClusterRun, stage: str) -> None:
        with self.database.transaction() as session:
            cluster_runs.set_stage(session, run.id, stage)


def _fit_geometries(
    space: SpaceRow, unit: np.ndarray, bases: Sequence[str] | None
) -> dict[GeometryKey, tuple[Geometry, int]]:
    """The geometries that searches of a space use, each with the number of models that it was fitted to.

    `bases` are the base models of the rows (n,) if the space spans several bases, else None.
    """
    if bases is None:
        geometry = transforms.fit_default(unit, space.feature)
        key = GeometryKey(transforms.default_kind(space.feature))
        return {key: (geometry, len(unit))} if geometry is not None else {}
    rows = {base: np.flatnonzero(np.array(bases) == base) for base in set(bases) - {""}}
    fits = {base: transforms.fit_to_base(unit[base_rows]) for base, base_rows in rows.items()}
    return {
        GeometryKey(transforms.STANDARDIZED, base): (geometry, len(rows[base]))
        for base, geometry in fits.items()
        if geometry is not None
    }


def _representative_members(
    session: Session, space: SpaceRow, model_ids: np.ndarray, clustering: Clustering
) -> list[list[naming.NamedMember]]:
    """The members closest to the centroid of each cluster, with their stored texts and tokens."""
    count = len(clustering.centroids)
    per_cluster = int(np.clip(MAX_EXPLAINING_MODELS // max(count, 1), 10, 200))
    order = np.lexsort((-clustering.similarity, clustering.labels))
    starts = np.searchsorted(clustering.labels[order], np.arange(count + 1))
    chosen = [model_ids[order[start : min(start + per_cluster, stop)]].tolist() for start, stop in pairwise(starts)]
    texts = cluster_members.get_member_texts(
        session, space.id, [model_id for members in chosen for model_id in members]
    )
    return [[_named_member(texts[model_id]) for model_id in members if model_id in texts] for members in chosen]


def _named_member(member: cluster_members.MemberText) -> naming.NamedMember:
    tokens = {str(token["token"]): float(token["shift"]) / max(member.norm, 1e-30) for token in member.tokens or ()}
    return naming.NamedMember(member.repo_id.split("/", 1)[-1], member.card or "", tuple(member.tags), tokens)


@dataclass(frozen=True)
class _Result:
    """The result of a run for the models (n,) that it clustered: their clusters, the explanation of each cluster, and
    the last change that the run covers. `started` is on the clock of `time.monotonic`.
    """

    run: ClusterRun
    space: SpaceRow
    model_ids: np.ndarray
    clustering: Clustering
    explanations: list[dict]
    covered_seq: int
    started: float


def _publish(session: Session, result: _Result) -> None:
    """Store a run's clusters and make the run current. The caller holds `feed.lock_feed`."""
    run, space, clustering = result.run, result.space, result.clustering
    previous = cluster_runs.find_current(session, space.id)
    matches, stability = _compare_with_previous(session, previous, result.model_ids, clustering)
    new_ids = iter(clusters.allocate_ids(session, matches.count(None)))
    cluster_ids = [cluster_id if cluster_id is not None else next(new_ids) for cluster_id in matches]
    clusters.store(session, _cluster_rows(session, result, previous, cluster_ids))
    _store_members(session, result, cluster_ids)
    cluster_runs.finish(
        session,
        run,
        parameters=clustering.parameters.as_dict(),
        covered_seq=result.covered_seq,
        models=len(result.model_ids),
        clusters=len(cluster_ids),
        sizes=clustering.sizes.tolist(),
        noise_share=clustering.noise_share,
        silhouette=clustering.silhouette,
        stability=stability,
        compared_with=previous.id if previous else None,
        metrics=clustering.metrics,
        seconds=time.monotonic() - result.started,
    )
    if spaces.is_default_for_base(session, space):
        cluster_members.publish(session, run.id, space.id)
    clusters.delete_all_but_newest(session, space.id, MAX_RUNS_WITH_MEMBERS)


def _cluster_rows(
    session: Session, result: _Result, previous: ClusterRun | None, cluster_ids: list[int]
) -> list[dict[str, Any]]:
    """The rows of the `clusters` table. A cluster that keeps its id keeps its name."""
    clustering = result.clustering
    previous_names = clusters.names_by_id(session, previous.id) if previous else {}
    names = naming.choose_names(result.explanations, [previous_names.get(cluster_id) for cluster_id in cluster_ids])
    return [
        {
            "run_id": result.run.id,
            "cluster_id": cluster_id,
            "name": names[index],
            "medoid_id": int(result.model_ids[clustering.medoid[index]]),
            "size": int(clustering.sizes[index]),
            "cohesion": float(clustering.cohesion[index]),
            "radius": float(clustering.radius[index]),
            "dimension": result.space.dimension,
            "centroid": clustering.centroids[index].astype("<f4").tobytes(),
            "explanation": result.explanations[index],
        }
        for index, cluster_id in enumerate(cluster_ids)
    ]


def _store_members(session: Session, result: _Result, cluster_ids: list[int]) -> None:
    """Store the cluster of each model of the run, and assign the models that arrived during the run."""
    clustering = result.clustering
    labels = [cluster_ids[label] if label >= 0 else None for label in clustering.labels.tolist()]
    cosines = [None if np.isnan(cosine) else cosine for cosine in clustering.similarity.tolist()]
    cluster_members.store(session, result.run.id, result.model_ids, labels, cosines)
    centroids = clusters.get_centroids(session, result.run.id)
    changes = feed.list_space_changes(session, {result.space.id: result.covered_seq}, MAX_ARRIVALS, public=True)
    for change in changes:
        assign_to_run(session, centroids, change.model_id, change.vector)
    gone = [change.model_id for change in changes if change.vector is None]
    cluster_members.remove_from_all_runs(session, models.find_removed(session, gone))


def _compare_with_previous(
    session: Session, previous: ClusterRun | None, model_ids: np.ndarray, clustering: Clustering
) -> tuple[list[int | None], float | None]:
    """The previous id of each cluster (None for new ones), and the adjusted Rand index over the models of both runs."""
    count = len(clustering.centroids)
    if previous is None:
        return [None] * count, None
    previous_models, previous_labels = cluster_members.list_labels(session, previous.id)
    _, rows, previous_rows = np.intersect1d(model_ids, previous_models, assume_unique=True, return_indices=True)
    if not len(rows):
        return [None] * count, None
    labels, previous_labels = clustering.labels[rows], previous_labels[previous_rows]
    table = quality.contingency_table(labels, previous_labels)
    return match_to_previous(labels, previous_labels, count), quality.adjusted_rand(table)


def main(space_id: int) -> int:
    """Compute the queued run of a space. Returns the exit code of the process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    conf = settings()
    database = Database(conf.require_database_url())
    try:
        ClusterRunner(database, conf.data_dir / "clusters").run(space_id)
    except CatalogError as error:
        log.error("clustering space %s failed: %s: %s", space_id, error.code, error)
        return 1
    finally:
        database.close()
    return 0
