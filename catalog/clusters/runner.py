"""Computes the clusters of a space and publishes them, in a separate process (`workers.maintenance clusters`)."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from sqlalchemy.orm import Session

from catalog.clusters import fitting, naming, publishing
from catalog.clusters.fitting import Clustering
from catalog.clusters.parameters import Parameters
from catalog.clusters.repository import members as cluster_members
from catalog.clusters.repository import runs as cluster_runs
from catalog.database import Database
from catalog.errors import CatalogError, WorkerLost
from catalog.geometry import transforms
from catalog.geometry.repository import GeometryKey
from catalog.geometry.transforms import Geometry
from catalog.models.repository import models
from catalog.settings import settings
from catalog.tables import ClusterRun, SpaceRow
from catalog.vectors.repository import stream as vector_stream
from catalog.vectors.unit_vectors import load_unit_vectors

MAX_ATTEMPTS = 3  # at a run whose process dies
MAX_EXPLAINING_MODELS = 20_000  # models of a space that its clusters are explained by, approximately

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
                space = session.get_one(SpaceRow, space_id)
                if run.attempts > MAX_ATTEMPTS:
                    error = WorkerLost(f"The process died {MAX_ATTEMPTS} times during this run. See the worker's log.")
                    cluster_runs.fail(session, run.id, error)
            if run.attempts > MAX_ATTEMPTS:
                publishing.delete_obsolete(self.database, space_id)
                return None
            try:
                self._run(run, space)
            except Exception as error:
                with self.database.transaction() as session:
                    cluster_runs.fail(session, run.id, error)
                publishing.delete_obsolete(self.database, space_id)
                raise
            return run.id

    def _run(self, run: ClusterRun, space: SpaceRow) -> None:
        started = time.monotonic()
        parameters = Parameters(run.algorithm, **run.parameters)  # type: ignore[arg-type]
        with self.database.snapshot() as session:
            covered_seq = vector_stream.last_seq_of_space(session, space.id)
            model_ids, unit = load_unit_vectors(session, space, self.folder)
            bases = models.list_bases(session, model_ids.tolist()) if space.base_repo is None else None
        fitted = _fit_geometries(space, unit, bases)
        clustering = fitting.fit(unit, parameters, lambda stage: self._report_stage(run, stage))
        self._report_stage(run, "explaining")
        with self.database.transaction() as session:
            explanations = naming.explain(_representative_members(session, space, model_ids, clustering))
        self._report_stage(run, "publishing")
        result = publishing.Result(
            run, space, model_ids, clustering, explanations, covered_seq, started, geometries=fitted
        )
        publishing.publish(self.database, result)
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
