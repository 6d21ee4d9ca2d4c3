"""Publishes a computed run. Its clusters and members are stored beforehand in short transactions, because nobody reads
them before the run is current; one transaction then makes it current, however many models it has.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from catalog.clusters import naming, quality
from catalog.clusters.assignment import assign_to_run
from catalog.clusters.fitting import Clustering
from catalog.clusters.matching import match_to_previous
from catalog.clusters.repository import clusters
from catalog.clusters.repository import members as cluster_members
from catalog.clusters.repository import runs as cluster_runs
from catalog.clusters.repository.clusters import Centroids
from catalog.database import Database
from catalog.geometry import repository as geometries
from catalog.geometry.repository import GeometryKey
from catalog.geometry.transforms import Geometry
from catalog.models.repository import models
from catalog.spaces import repository as spaces
from catalog.tables import ClusterRun, SpaceRow
from catalog.threads.throttling import throttled
from catalog.vectors.repository import feed

MAX_RUNS_WITH_MEMBERS = 10  # runs of a space that keep their clusters and members
MEMBERS_PER_TRANSACTION = 5_000
ARRIVALS_PER_TRANSACTION = 500  # with their vectors


@dataclass(frozen=True)
class Result:
    """The result of a run for the models (n,) that it clustered: their clusters, the explanation of each cluster, the
    last change that the run covers, and the geometries that were fitted, each with its number of models. `started` is
    on the clock of `time.monotonic`.
    """

    run: ClusterRun
    space: SpaceRow
    model_ids: np.ndarray
    clustering: Clustering
    explanations: list[dict]
    covered_seq: int
    started: float
    geometries: dict[GeometryKey, tuple[Geometry, int]] = field(default_factory=dict)


def publish(database: Database, result: Result) -> None:
    """Store a run's clusters and make the run current. The caller holds `cluster_runs.try_lock`.

    Only the last transaction holds `feed.lock_feed`. It writes no row of a model, and so many rows as there are
    changes since the page of arrivals before it.
    """
    run, space, clustering = result.run, result.space, result.clustering
    discard(database, run.id)  # what an attempt stored whose process died
    with database.transaction() as session:
        previous = cluster_runs.find_current(session, space.id)
        matches, stability = _compare_with_previous(session, previous, result.model_ids, clustering)
        new_ids = iter(clusters.allocate_ids(session, matches.count(None)))
        cluster_ids = [cluster_id if cluster_id is not None else next(new_ids) for cluster_id in matches]
        clusters.store(session, _cluster_rows(session, result, previous, cluster_ids))
        centroids = clusters.get_centroids(session, run.id)
    for page in throttled(_pages(len(result.model_ids))):
        with database.transaction() as session:
            _store_members(session, result, cluster_ids, page)
    arrivals = _Arrivals(space.id, centroids, result.covered_seq)
    while True:
        with database.transaction() as session:
            if not arrivals.assign_page(session):
                break
    with database.transaction() as session:
        feed.lock_feed(session)  # no vector is stored between reading the last arrivals and the swap
        while arrivals.assign_page(session):
            pass
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
        if arrivals.removed:
            cluster_members.remove_from_all_runs(session, sorted(arrivals.removed))
        if space.base_repo is not None:  # the clusters of a space that spans bases are mostly the bases
            spaces.set_unrelated_similarity(session, space.id, clustering.unrelated)
        for key, (geometry, count) in result.geometries.items():
            geometries.create(session, space.id, key, geometry, count)
    delete_obsolete(database, space.id)


def delete_obsolete(database: Database, space_id: int) -> None:
    """Delete the clusters and members of failed runs, and of all but the newest runs that are done."""
    with database.transaction() as session:
        run_ids = clusters.list_obsolete(session, space_id, MAX_RUNS_WITH_MEMBERS)
    for run_id in run_ids:
        discard(database, run_id)


def discard(database: Database, run_id: int) -> None:
    """Delete the clusters and members of a run that is not current."""
    for _ in throttled(_delete_pages(database, run_id)):
        pass


@dataclass
class _Arrivals:
    """The models that changed since a run read the vectors of its space, page by page: `seq` is the last change that
    was read, and `removed` are the models that were removed from the catalog since.
    """

    space_id: int
    centroids: Centroids
    seq: int
    removed: set[int] = field(default_factory=set)

    def assign_page(self, session: Session) -> bool:
        """Assign the models of the next page to the clusters of the run. True if there may be more of them."""
        positions = {self.space_id: self.seq}
        changes = feed.list_space_changes(session, positions, ARRIVALS_PER_TRANSACTION, public=True)
        gone = [change.model_id for change in changes if change.vector is None]
        self.removed = self.removed.difference(change.model_id for change in changes)
        self.removed |= set(models.find_removed(session, gone))
        for change in changes:
            if change.model_id not in self.removed:
                assign_to_run(session, self.centroids, change.model_id, change.vector)
        if changes:
            self.seq = changes[-1].seq
        return len(changes) == ARRIVALS_PER_TRANSACTION


def _delete_pages(database: Database, run_id: int) -> Iterator[None]:
    more = True
    while more:
        with database.transaction() as session:
            more = clusters.delete_page(session, run_id, MEMBERS_PER_TRANSACTION)
        yield


def _pages(count: int) -> Iterator[slice]:
    for start in range(0, count, MEMBERS_PER_TRANSACTION):
        yield slice(start, start + MEMBERS_PER_TRANSACTION)


def _store_members(session: Session, result: Result, cluster_ids: list[int], page: slice) -> None:
    clustering = result.clustering
    labels = [cluster_ids[label] if label >= 0 else None for label in clustering.labels[page].tolist()]
    cosines = [None if np.isnan(cosine) else cosine for cosine in clustering.similarity[page].tolist()]
    cluster_members.store(session, result.run.id, result.model_ids[page], labels, cosines)


def _cluster_rows(
    session: Session, result: Result, previous: ClusterRun | None, cluster_ids: list[int]
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
