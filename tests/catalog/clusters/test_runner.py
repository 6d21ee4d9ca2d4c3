from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from catalog.clusters import assignment, publishing
from catalog.clusters import runner as cluster_runner
from catalog.clusters import service as cluster_service
from catalog.clusters.parameters import Parameters
from catalog.clusters.repository import runs as cluster_runs
from catalog.clusters.runner import MAX_ATTEMPTS, ClusterRunner
from catalog.database import Database
from catalog.errors import ClusterNotFound, ClustersNotReady
from catalog.geometry import repository as geometries
from catalog.geometry import transforms
from catalog.geometry.repository import GeometryKey
from catalog.models.repository import models
from catalog.spaces import repository as spaces
from catalog.tables import RunState, SpaceRow
from catalog.vectors import unit_vectors
from catalog.vectors.repository import feed
from tests.support import catalog as entries
from tests.support.catalog import SPACE
from tests.support.clusters import TOPICS, cluster, cluster_filters, fill, vector


def ids_by_name(database: Database) -> dict[str, int]:
    return {cluster.name: cluster.cluster_id for cluster, _ in cluster_service.list_clusters(database).clusters}


def store(
    database: Database, assigner: assignment.ClusterAssigner, name: str, values: np.ndarray, *, no_shift: bool = False
) -> None:
    """Store a vector as a worker does."""
    with database.transaction() as session:
        feed.lock_feed(session)
        revision = entries.put_revision(session, name)
        space = spaces.ensure(session, SPACE, values.size)
        feed.store(session, space, revision, values, norm=3.0, no_shift=no_shift)
        assigner.assign(session, space, revision.model_id, None if no_shift else values)


def test_run_stores_named_clusters(database: Database, tmp_path: Path):
    fill(database)
    run_id = cluster(database, tmp_path)

    result = cluster_service.list_clusters(database)
    run = result.run
    assert (run.id, run.state, run.current, run.stage) == (run_id, RunState.DONE, True, None)
    assert (run.models, run.clusters, run.sizes, run.noise_share) == (12, 3, [4, 4, 4], 0)
    assert run.silhouette > 0.9
    assert (run.stability, run.compared_with) == (None, None)
    assert run.parameters["min_cluster_size"] == 3
    assert {row.name for row, _ in result.clusters} == {"law", "math", "code"}
    for row, medoid in result.clusters:
        assert f"-{row.name}-" in medoid


def test_searches_filter_by_the_clusters_of_the_run(database: Database, tmp_path: Path):
    fill(database)
    cluster(database, tmp_path)

    cluster_ids = ids_by_name(database)
    expected = {f"owner/tiny-{name}-{n}": cluster_ids[name] for name in TOPICS for n in range(4)}
    assert cluster_filters(database) == expected


def test_second_run_keeps_ids_and_names(database: Database, tmp_path: Path):
    fill(database)
    first = cluster(database, tmp_path)
    cluster_ids = ids_by_name(database)
    second = cluster(database, tmp_path)

    run = cluster_service.list_clusters(database).run
    assert (run.id, run.stability, run.compared_with) == (second, 1, first)
    assert ids_by_name(database) == cluster_ids


def test_runs_are_compared_over_their_shared_models(database: Database, tmp_path: Path):
    fill(database)
    first = cluster(database, tmp_path)
    first_ids = ids_by_name(database)
    entries.put(database, "owner/tiny-law-9", vector(0, 9))
    second = cluster(database, tmp_path, algorithm="kmeans", clusters=2)

    comparison = cluster_service.compare_runs(database, second, first)
    assert comparison.models == 12
    assert 0 < comparison.adjusted_rand < 1
    assert set(comparison.shared_clusters) <= set(first_ids.values())
    assert comparison.adjusted_rand == pytest.approx(cluster_service.list_clusters(database).run.stability)


def test_new_model_is_assigned_to_the_nearest_cluster(database: Database, tmp_path: Path):
    fill(database, models_per_topic=8)
    cluster(database, tmp_path)
    cluster_ids, assigner = ids_by_name(database), assignment.ClusterAssigner()
    store(database, assigner, "owner/new", sum(vector(0, number) for number in range(4)))
    store(database, assigner, "owner/far", vector(9))
    store(database, assigner, "owner/still", vector(0, 1), no_shift=True)

    new, far = (cluster_service.get_assignment(database, f"owner/{name}") for name in ("new", "far"))
    assert (new.cluster_id, new.name, new.assigned_after_run) == (cluster_ids["law"], "law", True)
    assert (far.cluster_id, far.assigned_after_run) == (None, True)
    with pytest.raises(ClustersNotReady):
        cluster_service.get_assignment(database, "owner/still")
    clusters = cluster_filters(database)
    assert [clusters[f"owner/{name}"] for name in ("new", "far", "still")] == [cluster_ids["law"], None, None]


def test_changed_model_moves_to_another_cluster(database: Database, tmp_path: Path):
    fill(database, models_per_topic=8)
    cluster(database, tmp_path)
    assigner = assignment.ClusterAssigner()
    store(database, assigner, "owner/tiny-law-0", vector(1, 3))
    assert cluster_filters(database)["owner/tiny-law-0"] == ids_by_name(database)["math"]


def test_model_stored_during_a_run_is_assigned_when_the_run_is_published(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fill(database, models_per_topic=8)
    explain = cluster_runner.naming.explain

    def store_and_explain(members: list) -> list:
        entries.put(database, "owner/late", vector(2, 3))
        return explain(members)

    monkeypatch.setattr(cluster_runner.naming, "explain", store_and_explain)
    cluster(database, tmp_path)
    late = cluster_service.get_assignment(database, "owner/late")
    assert (late.name, late.assigned_after_run) == ("code", True)
    assert cluster_filters(database)["owner/late"] == late.cluster_id


def test_removed_model_is_in_no_cluster(database: Database, tmp_path: Path):
    fill(database)
    cluster(database, tmp_path)
    with database.transaction() as session:
        model = models.get(session, "owner/tiny-law-0")
    entries.remove(database, model.id)
    cluster(database, tmp_path)
    assert cluster_filters(database)["owner/tiny-law-0"] is None


def test_run_without_models_succeeds(database: Database, tmp_path: Path):
    entries.put(database, "owner/none", [0, 0, 0, 1e-9], no_shift=True)
    cluster(database, tmp_path)
    assert cluster_service.list_clusters(database).run.clusters == 0


def test_vectors_that_do_not_fit_into_memory_are_read_from_a_file(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(unit_vectors, "MAX_IN_MEMORY", 0)
    fill(database)
    cluster(database, tmp_path)
    assert cluster_service.list_clusters(database).run.sizes == [4, 4, 4]


def test_second_request_returns_the_queued_run(database: Database):
    fill(database, models_per_topic=1)
    first, _ = cluster_service.request_run(database, Parameters())
    second, _ = cluster_service.request_run(database, Parameters("kmeans", clusters=2))
    assert second.id == first.id


def test_failed_run_stores_its_error_and_keeps_the_current_run(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fill(database)
    current = cluster(database, tmp_path)

    def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(cluster_runner.fitting, "fit", fail)
    run, space = cluster_service.request_run(database, Parameters())
    with pytest.raises(MemoryError):
        ClusterRunner(database, tmp_path).run(space.id)
    with database.transaction() as session:
        failed = cluster_runs.get(session, run.id)
    assert (failed.state, failed.error_code, failed.error_message) == (
        "failed", "internal_error", "MemoryError('no room')",
    )  # fmt: skip
    assert cluster_service.list_clusters(database).run.id == current


def test_only_one_process_clusters_a_space(database: Database, tmp_path: Path):
    fill(database, models_per_topic=1)
    _, space = cluster_service.request_run(database, Parameters())
    with database.transaction() as other:
        assert cluster_runs.try_lock(other, space.id)
        assert ClusterRunner(database, tmp_path).run(space.id) is None


def test_run_fails_after_its_process_died_too_often(database: Database, tmp_path: Path):
    fill(database)
    run, space = cluster_service.request_run(database, Parameters())
    for _ in range(MAX_ATTEMPTS):
        with database.transaction() as session:
            cluster_runs.claim(session, space.id)
    assert ClusterRunner(database, tmp_path).run(space.id) is None
    with database.transaction() as session:
        assert cluster_runs.get(session, run.id).error_code == "worker_lost"


def test_old_runs_keep_their_metrics_but_not_their_members(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(publishing, "MAX_RUNS_WITH_MEMBERS", 1)
    fill(database)
    first = cluster(database, tmp_path)
    cluster_id = ids_by_name(database)["law"]
    cluster(database, tmp_path)
    with database.transaction() as session:
        assert cluster_runs.get(session, first).sizes == [4, 4, 4]
    with pytest.raises(ClusterNotFound):
        cluster_service.get_cluster(database, cluster_id, first)
    assert cluster_service.get_cluster(database, cluster_id).cluster.name == "law"


def test_run_fits_the_default_geometry_of_the_space(database: Database, tmp_path: Path):
    fill(database)
    cluster(database, tmp_path)
    with database.transaction() as session:
        [(key, geometry_id)] = geometries.current_ids(session, [1])[1].items()
        stored = geometries.find(session, geometry_id)
    assert key == GeometryKey("centered")
    unit = np.stack([vector(topic, number) for topic in range(3) for number in range(4)])
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = transforms.fit_default(unit, SPACE.feature)
    assert stored.models == 12
    np.testing.assert_allclose(stored.geometry.apply(unit), expected.apply(unit), atol=1e-4)


def test_run_stores_how_near_models_of_different_clusters_are(database: Database, tmp_path: Path):
    fill(database)
    cluster(database, tmp_path)
    with database.transaction() as session:
        stored = session.get_one(SpaceRow, 1).unrelated_similarity
    unit = np.stack([vector(topic, number) for topic in range(3) for number in range(4)])
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    topics = np.repeat(np.arange(3), 4)
    greatest = np.where(topics[:, None] == topics, -1, unit @ unit.T).max(axis=1)
    assert stored == pytest.approx(np.quantile(greatest, 0.9), abs=1e-6)


def test_run_with_one_cluster_stores_no_nearness(database: Database, tmp_path: Path):
    fill(database)
    cluster(database, tmp_path)
    cluster(database, tmp_path, algorithm="kmeans", clusters=1)
    with database.transaction() as session:
        assert session.get_one(SpaceRow, 1).unrelated_similarity is None


def test_run_of_one_model_fits_no_geometry(database: Database, tmp_path: Path):
    fill(database, models_per_topic=1, topics=1)
    cluster(database, tmp_path)
    with database.transaction() as session:
        assert geometries.current_ids(session, [1]) == {}


def test_private_models_are_not_clustered_even_if_they_arrive_during_the_run(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fill(database)
    entries.put_private(database, "owner/hidden-first", vector(0, 90), "me")
    fit = cluster_runner.fitting.fit
    monkeypatch.setattr(
        cluster_runner.fitting,
        "fit",
        lambda *arguments: (
            entries.put_private(database, "owner/hidden-second", vector(0, 91), "me") and fit(*arguments)
        ),
    )
    cluster(database, tmp_path)

    assert cluster_service.list_clusters(database).run.sizes == [4, 4, 4]
    assert all(number is None for name, number in cluster_filters(database).items() if "hidden" in name)
    with database.transaction() as session:
        members = session.execute(text("SELECT count(*) FROM cluster_members")).scalar_one()
    assert members == 12
