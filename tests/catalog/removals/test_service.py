"""Removals while indexes, clusters and maps of the former vectors exist or are being computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.filling import fill as fill_space
from benchmarks.pool_like import PoolLike
from catalog.clusters import fitting, service
from catalog.clusters.assignment import ClusterAssigner
from catalog.database import Database
from catalog.errors import ReindexFinished
from catalog.index.builder import IndexBuilder
from catalog.index.loader import IndexLoader
from catalog.index.schedule import BuildPolicy
from catalog.reindexes import cutover
from catalog.removals import service as removal_service
from catalog.removals import spaces as space_service
from catalog.spaces import repository as spaces
from catalog.tables import Model
from catalog.vectors.repository import feed
from tests.support import catalog as entries
from tests.support.catalog import SPACE
from tests.support.clusters import cluster, fill, vector
from tests.support.index import COUNT, DIMENSION, rebuild
from tests.support.reindexes import EXACT_BYTES, list_jobs, make_ready, measure_job, start_reindex


@pytest.fixture
def builder(database: Database, tmp_path: Path) -> IndexBuilder:
    assert fill_space(database, COUNT, DIMENSION, [PoolLike(COUNT, DIMENSION).all()]) == 1
    return IndexBuilder(database, tmp_path / "index", BuildPolicy(exact_bytes=100_000, rows=100))


def found(loader: IndexLoader, query: np.ndarray) -> list[int]:
    return loader.load(1, DIMENSION).index.search(query, 3).model_ids.tolist()


def test_main_segment_from_before_a_removal_does_not_bring_the_model_back(builder: IndexBuilder, database: Database):
    query = PoolLike(COUNT, DIMENSION).all()[7]
    assert rebuild(builder) == 1
    loader = IndexLoader(database, builder.folder)
    nearest = found(loader, query)
    assert nearest[0] == 8
    with database.transaction() as session:
        repo_id = session.get_one(Model, 8).repo_id

    removal_service.remove(database, repo_id)

    assert found(loader, query)[:2] == nearest[1:]
    assert found(IndexLoader(database, None), query)[:2] == nearest[1:]  # from the vectors in Postgres
    assert rebuild(builder) == 2
    assert found(loader, query)[:2] == nearest[1:]


def test_run_that_ends_after_a_removal_has_no_trace_of_the_model(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fill(database)
    medoids = {name for _, name in clusters_of(database, tmp_path)}
    fit = fitting.fit

    def fit_and_remove(*arguments, **options):
        result = fit(*arguments, **options)
        for name in medoids:
            removal_service.remove(database, name)
        return result

    monkeypatch.setattr(fitting, "fit", fit_and_remove)

    remaining = clusters_of(database, tmp_path)

    assert len(remaining) == 3
    assert medoids.isdisjoint(name for _, name in remaining)
    listed = {name for cluster_id, _ in remaining for name in members_of(database, cluster_id)}
    assert len(listed) == 9
    assert medoids.isdisjoint(listed)


def clusters_of(database: Database, folder: Path) -> list[tuple[int, str]]:
    """The ids and medoids of the clusters of a new run."""
    cluster(database, folder)
    return [(row.cluster_id, medoid) for row, medoid in service.list_clusters(database).clusters]


def members_of(database: Database, cluster_id: int) -> list[str]:
    return [name for _, name in service.list_members(database, cluster_id, after=None, limit=100)[1]]


def test_new_model_joins_a_run_that_lost_a_cluster(database: Database, tmp_path: Path):
    fill(database)
    cluster(database, tmp_path)
    assigner = ClusterAssigner()

    def assign(repo_id: str, values: np.ndarray) -> None:
        model_id = entries.put(database, repo_id, values)
        with database.transaction() as session:
            feed.lock_feed(session)
            assigner.assign(session, spaces.get(session, SPACE.key), model_id, values.astype(np.float32))

    assign("owner/first", vector(1, 50))
    for number in range(4):
        removal_service.remove(database, f"owner/tiny-law-{number}")

    assign("owner/second", vector(0, 50))  # the cluster that it would have joined is gone

    assert {row.name for row, _ in service.list_clusters(database).clusters} == {"math", "code"}


def test_reindex_is_not_rolled_back_to_a_dropped_space(database: Database):
    entries.put(database, "a/m0", [1, 0])
    reindex_id = start_reindex(database)
    for job in list_jobs(database, reindex_id):
        measure_job(database, job, [0, 1])
    make_ready(database, reindex_id)
    cutover.cut_over(database, reindex_id, exact_bytes=EXACT_BYTES)
    space_service.drop(database, SPACE.key)

    with pytest.raises(ReindexFinished, match="was dropped"):
        cutover.roll_back(database, reindex_id, force=True)
