from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from catalog.clusters import publishing
from catalog.clusters import service as cluster_service
from catalog.clusters.parameters import Parameters
from catalog.clusters.repository import runs as cluster_runs
from catalog.clusters.runner import ClusterRunner
from catalog.database import Database
from catalog.index.filters import Filters
from catalog.index.follower import IndexFollower
from catalog.jobs.submissions import submit_repo
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import models
from catalog.removals import service as removals
from catalog.tables import RunState
from catalog.vectors.repository import feed
from tests.support import catalog as entries
from tests.support.clusters import cluster, cluster_filters, fill, row_versions, vector
from tests.support.impatience import impatient_database


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "MEMBERS_PER_TRANSACTION", 5)
    monkeypatch.setattr(publishing, "ARRIVALS_PER_TRANSACTION", 2)


@pytest.fixture
def impatient(database: Database) -> Iterator[Database]:
    """The database for requests that may not wait long for a lock."""
    with impatient_database(database) as impatient:
        yield impatient


@pytest.fixture
def follower(database: Database) -> Iterator[IndexFollower]:
    follower = IndexFollower(database, 3600)
    yield follower
    follower.stop()


@contextmanager
def during_publication(database: Database, monkeypatch: pytest.MonkeyPatch, action: object) -> Iterator[None]:
    """Run `action` after the members of a run are stored and before the run is current."""
    finish = publishing._Arrivals.assign_page
    called: list[bool] = []

    def act_once(self: publishing._Arrivals, session: object) -> bool:
        if not called:
            called.append(True)
            action()  # type: ignore[operator]
        return finish(self, session)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(publishing._Arrivals, "assign_page", act_once)
        yield
    assert called


def found(follower: IndexFollower, database: Database, *cluster_ids: int | None) -> set[str]:
    """The models that a search finds by the clusters, after the follower has read the feed."""
    follower.sync()
    mask = follower.allowed(Filters(clusters=tuple(number for number in cluster_ids if number is not None)))
    assert mask is not None
    with database.transaction() as session:
        rows = models.get_by_ids(session, mask.nonzero()[0].tolist())
    return {row.repo_id for row in rows.values()}


def members(database: Database, run_id: int) -> int:
    with database.transaction() as session:
        statement = text("SELECT count(*) FROM cluster_members WHERE run_id = :run")
        return session.execute(statement, {"run": run_id}).scalar_one()


def test_publication_writes_no_row_of_a_model(database: Database, tmp_path: Path):
    fill(database)
    before = row_versions(database)
    cluster(database, tmp_path)
    cluster(database, tmp_path, algorithm="kmeans", clusters=2)
    assert row_versions(database) == before


def test_submission_does_not_wait_for_changes_of_its_model(database: Database, impatient: Database):
    model_id = entries.put(database, "owner/one", [1, 0])
    with database.transaction() as session:
        feed.lock_feed(session)
        models.bump_seq(session, model_id)
        assert submit_repo(impatient, RepoRef("owner/one")).model_id == model_id


def test_submissions_do_not_wait_for_the_transaction_that_publishes_a_run(
    database: Database, impatient: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fill(database)
    names = list(row_versions(database))
    submitted = []
    finish = cluster_runs.finish

    def finish_and_submit(session: Session, *arguments: Any, **values: Any) -> None:
        finish(session, *arguments, **values)
        session.flush()
        submitted.extend(submit_repo(impatient, RepoRef(name)).id for name in [*names, "owner/new"])

    monkeypatch.setattr(cluster_runs, "finish", finish_and_submit)
    cluster(database, tmp_path)
    assert len(set(submitted)) == 13


def test_follower_filters_by_the_new_run_once_it_is_published(
    database: Database, tmp_path: Path, follower: IndexFollower
):
    fill(database)
    law = {f"owner/tiny-law-{number}" for number in range(4)}
    cluster(database, tmp_path)
    first = cluster_filters(database)
    assert found(follower, database, first["owner/tiny-law-0"]) == law
    cluster(database, tmp_path, algorithm="kmeans", clusters=1)
    [cluster_id] = set(cluster_filters(database).values())
    assert found(follower, database, cluster_id) == set(first)
    assert found(follower, database, *(set(first.values()) - {cluster_id})) == set()


def test_follower_reads_the_cluster_of_a_model_that_arrives_after_the_run(
    database: Database, tmp_path: Path, follower: IndexFollower, monkeypatch: pytest.MonkeyPatch
):
    fill(database, models_per_topic=8)
    near_law = sum(vector(0, number) for number in range(8))
    with during_publication(database, monkeypatch, lambda: entries.put(database, "owner/late", near_law)):
        cluster(database, tmp_path)
    cluster_id = cluster_filters(database)["owner/tiny-law-0"]
    assert "owner/late" in found(follower, database, cluster_id)


def test_models_that_change_during_publication_are_assigned_in_pages(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pages: None
):
    fill(database, models_per_topic=8)
    near_math = sum(vector(1, number) for number in range(8))

    def change() -> None:
        for number in range(5):
            entries.put(database, f"owner/late-{number}", near_math)
        entries.put(database, "owner/tiny-law-0", near_math, commit="two")

    with during_publication(database, monkeypatch, change):
        run_id = cluster(database, tmp_path)
    filters = cluster_filters(database)
    late = {filters[f"owner/late-{number}"] for number in range(5)}
    assert late == {filters["owner/tiny-law-0"]} == {filters["owner/tiny-math-0"]}
    assert members(database, run_id) == 29


def test_model_removed_during_publication_is_in_no_cluster(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pages: None
):
    fill(database)
    cluster(database, tmp_path)
    medoid = {name: row for row, name in cluster_service.list_clusters(database).clusters}
    gone = next(iter(medoid))
    with during_publication(database, monkeypatch, lambda: removals.remove(database, gone)):
        run_id = cluster(database, tmp_path)
    rows = cluster_service.list_clusters(database).clusters
    assert gone not in {name for _, name in rows}
    assert sorted(row.size for row, _ in rows) == [3, 4, 4]
    assert members(database, run_id) == 11


def test_half_published_run_is_not_shown_and_is_published_by_the_next_attempt(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pages: None
):
    fill(database)
    first = cluster(database, tmp_path)
    before = cluster_filters(database)
    run, space = cluster_service.request_run(database, Parameters("kmeans", clusters=2))

    def die() -> None:
        assert members(database, run.id) == 12
        assert cluster_service.list_clusters(database).run.id == first
        assert cluster_filters(database) == before
        raise SystemExit  # as if the process was killed: the run stays running

    runner = ClusterRunner(database, tmp_path)
    with pytest.raises(SystemExit), during_publication(database, monkeypatch, die):
        runner.run(space.id)
    assert cluster_service.get_run(database, run.id)[0].state == RunState.RUNNING
    assert runner.run(space.id) == run.id
    assert members(database, run.id) == 12
    assert len(set(cluster_filters(database).values())) == 2


def test_failed_publication_leaves_no_members(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pages: None
):
    fill(database)
    first = cluster(database, tmp_path)
    run, space = cluster_service.request_run(database, Parameters())

    def fail() -> None:
        raise IntegrityError("a statement", None, Exception("failed"))

    with pytest.raises(IntegrityError), during_publication(database, monkeypatch, fail):
        ClusterRunner(database, tmp_path).run(space.id)
    assert (members(database, run.id), members(database, first)) == (0, 12)
    assert cluster_service.list_clusters(database).run.id == first
