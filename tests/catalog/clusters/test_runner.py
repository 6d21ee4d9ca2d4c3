from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from catalog.clusters import assignment
from catalog.clusters import runner as cluster_runner
from catalog.clusters import service as cluster_service
from catalog.clusters.parameters import Parameters
from catalog.clusters.repository import runs as cluster_runs
from catalog.clusters.runner import ATTEMPTS, Grouper
from catalog.database import Database
from catalog.errors import ClusterNotFound, NotClustered
from catalog.geometry import repository as geometries
from catalog.geometry import transforms
from catalog.geometry.transforms import SERVED
from catalog.models.repository import attributes, models
from catalog.spaces import repository as spaces
from catalog.tables import RunState
from catalog.vectors import unit_vectors
from catalog.vectors.repository import feed
from tests.support import catalog as entries
from tests.support.catalog import SPACE
from tests.support.clusters import TOPICS, cluster, fill, filters, vector


def by_name(database: Database) -> dict[str, int]:
    return {cluster.name: cluster.cluster_id for cluster, _ in cluster_service.overview(database).clusters}


def last_seq(database: Database) -> int:
    with database.transaction() as session:
        return session.execute(text("SELECT max(seq) FROM models")).scalar_one()


def read_anew(database: Database, after: int) -> set[str]:
    """The models whose attributes a follower of the feed reads after that change."""
    with database.transaction() as session:
        changed = [each.model_id for each in attributes.changes(session, after, 1000)]
        return {model.repo_id for model in models.by_ids(session, changed).values()}


def store(
    database: Database, placer: assignment.Placer, name: str, values: np.ndarray, *, no_shift: bool = False
) -> None:
    """What a worker does with a vector."""
    with database.transaction() as session:
        feed.lock_feed(session)
        revision = entries.put_revision(session, name)
        space = spaces.ensure(session, SPACE, values.size)
        feed.store(session, space, revision, values, norm=3.0, no_shift=no_shift)
        placer.place(session, space, revision.model_id, None if no_shift else values)


def test_a_run_finds_names_and_stores_the_clusters(database: Database, tmp_path: Path):
    fill(database)
    number = cluster(database, tmp_path)

    found = cluster_service.overview(database)
    run = found.run
    assert (run.id, run.state, run.current, run.stage) == (number, RunState.DONE, True, None)
    assert (run.models, run.clusters, run.sizes, run.noise_share) == (12, 3, [4, 4, 4], 0)
    assert run.silhouette > 0.9
    assert (run.stability, run.compared_with) == (None, None)
    assert run.parameters["min_cluster_size"] == 3
    assert {each.name for each, _ in found.clusters} == {"law", "math", "code"}
    for each, medoid in found.clusters:
        assert f"-{each.name}-" in medoid


def test_searches_filter_by_the_clusters_and_hear_of_them(database: Database, tmp_path: Path):
    fill(database)
    before = last_seq(database)
    cluster(database, tmp_path)

    numbers = by_name(database)
    assert filters(database) == {f"owner/tiny-{name}-{n}": numbers[name] for name in TOPICS for n in range(4)}
    assert read_anew(database, before) == set(filters(database))


def test_a_second_run_keeps_numbers_and_names_and_says_nothing_new(database: Database, tmp_path: Path):
    fill(database)
    first = cluster(database, tmp_path)
    numbers, before = by_name(database), last_seq(database)
    second = cluster(database, tmp_path)

    run = cluster_service.overview(database).run
    assert (run.id, run.stability, run.compared_with) == (second, 1, first)
    assert by_name(database) == numbers
    assert read_anew(database, before) == set()


def test_runs_are_compared_over_the_models_of_both(database: Database, tmp_path: Path):
    fill(database)
    first = cluster(database, tmp_path)
    kept = by_name(database)
    entries.put(database, "owner/tiny-law-9", vector(0, 9))
    second = cluster(database, tmp_path, algorithm="kmeans", clusters=2)

    found = cluster_service.compare(database, second, first)
    assert found.models == 12
    assert 0 < found.adjusted_rand < 1
    assert set(found.kept) <= set(kept.values())
    assert found.adjusted_rand == pytest.approx(cluster_service.overview(database).run.stability)


def test_a_model_that_comes_between_runs_is_placed_at_once(database: Database, tmp_path: Path):
    fill(database, each=8)
    cluster(database, tmp_path)
    numbers, placer = by_name(database), assignment.Placer()
    store(database, placer, "owner/new", sum(vector(0, number) for number in range(4)))
    store(database, placer, "owner/far", vector(9))
    store(database, placer, "owner/still", vector(0, 1), no_shift=True)

    new, far = (cluster_service.of_model(database, f"owner/{name}") for name in ("new", "far"))
    assert (new.cluster_id, new.name, new.placed) == (numbers["law"], "law", True)
    assert (far.cluster_id, far.placed) == (None, True)
    with pytest.raises(NotClustered):
        cluster_service.of_model(database, "owner/still")
    found = filters(database)
    assert [found[f"owner/{name}"] for name in ("new", "far", "still")] == [numbers["law"], None, None]


def test_a_model_that_turns_into_another_leaves_its_cluster(database: Database, tmp_path: Path):
    fill(database, each=8)
    cluster(database, tmp_path)
    placer = assignment.Placer()
    store(database, placer, "owner/tiny-law-0", vector(1, 3))
    assert filters(database)["owner/tiny-law-0"] == by_name(database)["math"]


def test_what_is_stored_during_a_run_is_placed_when_it_is_shown(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fill(database, each=8)
    explain = cluster_runner.naming.explain

    def meanwhile(members: list) -> list:
        entries.put(database, "owner/late", vector(2, 3))
        return explain(members)

    monkeypatch.setattr(cluster_runner.naming, "explain", meanwhile)
    cluster(database, tmp_path)
    found = cluster_service.of_model(database, "owner/late")
    assert (found.name, found.placed) == ("code", True)
    assert filters(database)["owner/late"] == found.cluster_id


def test_a_model_that_left_the_space_is_in_no_cluster(database: Database, tmp_path: Path):
    fill(database)
    cluster(database, tmp_path)
    with database.transaction() as session:
        gone = models.get(session, "owner/tiny-law-0")
    entries.remove(database, gone.id)
    cluster(database, tmp_path)
    assert filters(database)["owner/tiny-law-0"] is None


def test_a_run_of_nothing_ends_well(database: Database, tmp_path: Path):
    entries.put(database, "owner/none", [0, 0, 0, 1e-9], no_shift=True)
    cluster(database, tmp_path)
    assert cluster_service.overview(database).run.clusters == 0


def test_vectors_that_are_too_many_for_memory_are_read_from_a_file(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(unit_vectors, "IN_MEMORY", 0)
    fill(database)
    cluster(database, tmp_path)
    assert cluster_service.overview(database).run.sizes == [4, 4, 4]


def test_asking_twice_gives_the_run_that_waits(database: Database):
    fill(database, each=1)
    first, _ = cluster_service.ask(database, Parameters())
    second, _ = cluster_service.ask(database, Parameters("kmeans", clusters=2))
    assert second.id == first.id


def test_a_run_that_fails_says_why_and_leaves_what_is_shown(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fill(database)
    shown = cluster(database, tmp_path)

    def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(cluster_runner.fitting, "fit", fail)
    run, space = cluster_service.ask(database, Parameters())
    with pytest.raises(MemoryError):
        Grouper(database, tmp_path).run(space.id)
    with database.transaction() as session:
        failed = cluster_runs.get(session, run.id)
    assert (failed.state, failed.error_code, failed.error_message) == (
        "failed", "internal_error", "MemoryError('no room')",
    )  # fmt: skip
    assert cluster_service.overview(database).run.id == shown


def test_one_process_at_a_time_works_on_a_space(database: Database, tmp_path: Path):
    fill(database, each=1)
    _, space = cluster_service.ask(database, Parameters())
    with database.transaction() as other:
        assert cluster_runs.try_lock(other, space.id)
        assert Grouper(database, tmp_path).run(space.id) is None


def test_a_run_whose_process_dies_again_and_again_fails(database: Database, tmp_path: Path):
    fill(database)
    run, space = cluster_service.ask(database, Parameters())
    for _ in range(ATTEMPTS):
        with database.transaction() as session:
            cluster_runs.take(session, space.id)
    assert Grouper(database, tmp_path).run(space.id) is None
    with database.transaction() as session:
        assert cluster_runs.get(session, run.id).error_code == "worker_lost"


def test_old_runs_keep_their_figures_and_lose_their_members(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster_runner, "KEPT", 1)
    fill(database)
    first = cluster(database, tmp_path)
    number = by_name(database)["law"]
    cluster(database, tmp_path)
    with database.transaction() as session:
        assert cluster_runs.get(session, first).sizes == [4, 4, 4]
    with pytest.raises(ClusterNotFound):
        cluster_service.detail(database, number, first)
    assert cluster_service.detail(database, number).cluster.name == "law"


def test_a_run_fits_the_geometries_that_searches_offer(database: Database, tmp_path: Path):
    fill(database)
    cluster(database, tmp_path)
    with database.transaction() as session:
        numbers = geometries.newest(session, [1])[1]
        fitted = {place.kind: geometries.get(session, number) for place, number in numbers.items()}
    assert set(fitted) == set(SERVED)
    unit = np.stack([vector(topic, number) for topic in range(3) for number in range(4)])
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = transforms.fitted(unit, SPACE.feature)
    for kind, each in fitted.items():
        assert each.models == 12
        np.testing.assert_allclose(each.geometry.apply(unit), expected[kind].apply(unit), atol=1e-4)


def test_a_run_of_one_model_fits_none(database: Database, tmp_path: Path):
    fill(database, each=1, topics=1)
    cluster(database, tmp_path)
    with database.transaction() as session:
        assert geometries.newest(session, [1]) == {}


def test_private_models_take_no_part_also_when_they_come_while_it_runs(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fill(database)
    entries.put_private(database, "owner/hidden-first", vector(0, 90), "me")
    fit = cluster_runner.fitting.fit
    monkeypatch.setattr(
        cluster_runner.fitting,
        "fit",
        lambda *given: entries.put_private(database, "owner/hidden-second", vector(0, 91), "me") and fit(*given),
    )
    cluster(database, tmp_path)

    assert cluster_service.overview(database).run.sizes == [4, 4, 4]
    assert all(number is None for name, number in filters(database).items() if "hidden" in name)
    with database.transaction() as session:
        members = session.execute(text("SELECT count(*) FROM cluster_members")).scalar_one()
    assert members == 12
