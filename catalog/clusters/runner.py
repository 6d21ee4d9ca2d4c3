"""Finds the clusters of a space and shows them, in a process of its own (`workers.maintenance clusters`)."""

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
from catalog.clusters.assignment import put
from catalog.clusters.fitting import Clustering
from catalog.clusters.matching import kept
from catalog.clusters.parameters import Parameters
from catalog.clusters.repository import clusters
from catalog.clusters.repository import members as cluster_members
from catalog.clusters.repository import runs as cluster_runs
from catalog.database import Database
from catalog.errors import CatalogError, WorkerLost
from catalog.geometry import repository as geometries
from catalog.geometry import transforms
from catalog.geometry.repository import Place
from catalog.geometry.transforms import Geometry
from catalog.models.repository import models
from catalog.settings import settings
from catalog.spaces import repository as spaces
from catalog.tables import ClusterRun, SpaceRow
from catalog.vectors.repository import feed
from catalog.vectors.repository import stream as vector_stream
from catalog.vectors.unit_vectors import load

KEPT = 10  # runs of a space that keep their clusters and members
ATTEMPTS = 3  # of a run whose process dies
TOLD = 20_000  # models of a space that its clusters are explained by, about
ARRIVALS = 100_000  # changes during a run that are placed when it is shown

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Grouper:
    """Runs what was asked for. At most one works on a space at a time, on any machine; `folder` is for its vectors."""

    database: Database
    folder: Path

    def run(self, space_id: int) -> int | None:
        """The run that was finished; None where another process is at it, or nothing was asked for.

        Raises what the database raises; what went wrong is stored with the run.
        """
        with self.database.transaction() as lock:
            if not cluster_runs.try_lock(lock, space_id):
                return None
            with self.database.transaction() as session:
                run = cluster_runs.take(session, space_id)
                if run is None:
                    return None
                if run.attempts > ATTEMPTS:
                    error = WorkerLost(f"The process died {ATTEMPTS} times while it ran; its log may say why.")
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
            covered = vector_stream.covered(session, space.id)
            model_ids, unit = load(session, space, self.folder)
            bases = models.bases(session, model_ids.tolist()) if space.base_repo is None else None
        fitted = _geometries(space, unit, bases)
        found = fitting.fit(unit, parameters, lambda stage: self._tell(run, stage))
        self._tell(run, "explaining")
        with self.database.transaction() as session:
            explanations = naming.explain(_members_told(session, space, model_ids, found))
        self._tell(run, "publishing")
        with self.database.transaction() as session:
            feed.lock_feed(session)  # nobody stores a vector between this and the swap
            _publish(session, _Result(run, space, model_ids, found, explanations, covered, started))
            for place, (fit, count) in fitted.items():
                geometries.store(session, space.id, place, fit, count)
        log.info("space %s: %s clusters of %s models", space.id, len(found.centroids), len(model_ids))

    def _tell(self, run: ClusterRun, stage: str) -> None:
        with self.database.transaction() as session:
            cluster_runs.tell(session, run.id, stage)


def _geometries(space: SpaceRow, unit: np.ndarray, bases: Sequence[str] | None) -> dict[Place, tuple[Geometry, int]]:
    """What searches of a space offer, and how many models each was fitted to; where the space spans several, `bases`
    are those of the models (n,).
    """
    if bases is None:
        found = transforms.fitted(unit, space.feature)
        return {Place(kind): (fit, len(unit)) for kind, fit in found.items()}
    rows = {base: np.flatnonzero(np.array(bases) == base) for base in set(bases) - {""}}
    fits = {base: transforms.fitted_to_base(unit[own]) for base, own in rows.items()}
    return {
        Place(transforms.STANDARDISED, base): (fit, len(rows[base])) for base, fit in fits.items() if fit is not None
    }


def _members_told(
    session: Session, space: SpaceRow, model_ids: np.ndarray, found: Clustering
) -> list[list[naming.Told]]:
    """Of each cluster the members closest to its centroid, with what is stored of them."""
    each = int(np.clip(TOLD // max(len(found.centroids), 1), 10, 200))
    order = np.lexsort((-found.similarity, found.labels))
    starts = np.searchsorted(found.labels[order], np.arange(len(found.centroids) + 1))
    chosen = [model_ids[order[start : min(start + each, stop)]].tolist() for start, stop in pairwise(starts)]
    known = cluster_members.told(session, space.id, [model_id for members in chosen for model_id in members])
    return [[_told(known[model_id]) for model_id in members if model_id in known] for members in chosen]


def _told(row: cluster_members.Told) -> naming.Told:
    tokens = {str(each["token"]): float(each["shift"]) / max(row.norm, 1e-30) for each in row.tokens or ()}
    return naming.Told(row.repo_id.split("/", 1)[-1], row.card or "", tuple(row.tags), tokens)


@dataclass(frozen=True)
class _Result:
    """What a run found of the models (n,) that it clustered: their clusters, what explains each of these, and the last
    change that it covers. `started` is on the clock of `time.monotonic`.
    """

    run: ClusterRun
    space: SpaceRow
    model_ids: np.ndarray
    clustering: Clustering
    explanations: list[dict]
    covered_seq: int
    started: float


def _publish(session: Session, result: _Result) -> None:
    """Store a run's clusters and show them in place of the last ones. The caller holds `vectors.lock_feed`."""
    run, space, found = result.run, result.space, result.clustering
    last = cluster_runs.current(session, space.id)
    kept_numbers, stability = _against(session, last, result.model_ids, found)
    fresh = iter(clusters.numbers(session, kept_numbers.count(None)))
    numbers = [number if number is not None else next(fresh) for number in kept_numbers]
    clusters.store(session, _cluster_rows(session, result, last, numbers))
    _store_members(session, result, numbers)
    cluster_runs.finish(
        session,
        run,
        parameters=found.parameters.as_dict(),
        covered_seq=result.covered_seq,
        models=len(result.model_ids),
        clusters=len(numbers),
        sizes=found.sizes.tolist(),
        noise_share=found.noise_share,
        silhouette=found.silhouette,
        stability=stability,
        compared_with=last.id if last else None,
        figures=found.figures,
        seconds=time.monotonic() - result.started,
    )
    if spaces.leads(session, space):
        cluster_members.show(session, run.id, space.id)
    clusters.forget_all_but(session, space.id, KEPT)


def _cluster_rows(
    session: Session, result: _Result, last: ClusterRun | None, numbers: list[int]
) -> list[dict[str, Any]]:
    """As they are stored. A cluster that keeps its number keeps its name."""
    found = result.clustering
    given = clusters.given_names(session, last.id) if last else {}
    names = naming.names(result.explanations, [given.get(number) for number in numbers])
    return [
        {
            "run_id": result.run.id,
            "cluster_id": number,
            "name": names[index],
            "medoid_id": int(result.model_ids[found.medoid[index]]),
            "size": int(found.sizes[index]),
            "cohesion": float(found.cohesion[index]),
            "radius": float(found.radius[index]),
            "dimension": result.space.dimension,
            "centroid": found.centroids[index].astype("<f4").tobytes(),
            "explanation": result.explanations[index],
        }
        for index, number in enumerate(numbers)
    ]


def _store_members(session: Session, result: _Result, numbers: list[int]) -> None:
    """Where each model is, and those that came while the run was at work."""
    found = result.clustering
    labels = [numbers[label] if label >= 0 else None for label in found.labels.tolist()]
    cosines = [None if np.isnan(cosine) else cosine for cosine in found.similarity.tolist()]
    cluster_members.store(session, result.run.id, result.model_ids, labels, cosines)
    known = clusters.centroids(session, result.run.id)
    for change in feed.changes_of(session, {result.space.id: result.covered_seq}, ARRIVALS, public=True):
        put(session, known, change.model_id, change.vector)


def _against(
    session: Session, last: ClusterRun | None, model_ids: np.ndarray, found: Clustering
) -> tuple[list[int | None], float | None]:
    """The number that each cluster keeps from the last run, and the adjusted Rand index over the models of both."""
    count = len(found.centroids)
    if last is None:
        return [None] * count, None
    known, before = cluster_members.labels(session, last.id)
    _, mine, theirs = np.intersect1d(model_ids, known, assume_unique=True, return_indices=True)
    if not len(mine):
        return [None] * count, None
    labels, before = found.labels[mine], before[theirs]
    return kept(labels, before, count), quality.adjusted_rand(quality.crossed(labels, before))


def main(space_id: int) -> int:
    """Run what waits for that space and say how it went: the exit code of the process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    conf = settings()
    database = Database(conf.require_database_url())
    try:
        Grouper(database, conf.data_dir / "clusters").run(space_id)
    except CatalogError as error:
        log.error("the clusters of space %s were not found: %s: %s", space_id, error.code, error)
        return 1
    finally:
        database.close()
    return 0
