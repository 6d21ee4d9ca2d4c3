"""Cutover, cancellation and rollback of reindexes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from catalog.clusters import service as cluster_service
from catalog.clusters.parameters import Parameters
from catalog.clusters.repository import runs as cluster_runs
from catalog.clusters.runner import ClusterRunner
from catalog.database import Database
from catalog.errors import ReindexFinished, ReindexIncomplete, ReindexNotReady, RepoNotFound
from catalog.jobs.repository import jobs
from catalog.jobs.submissions import submit_repo
from catalog.maps import repository as maps
from catalog.maps.runner import MapRunner
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import models
from catalog.reindexes import cutover, readiness
from catalog.reindexes import service as reindex_service
from catalog.reindexes.repository import reindexes
from catalog.reindexes.service import ReindexSelection
from catalog.spaces import repository as spaces
from catalog.tables import JobState, ModelState, Reindex, ReindexState
from catalog.vectors.repository import feed, vectors
from tests.support import catalog as entries
from tests.support.catalog import SPACE
from tests.support.clusters import cluster_filters, row_versions
from tests.support.impatience import impatient_database
from tests.support.reindexes import (
    EXACT_BYTES,
    end_job,
    get_reindex,
    list_jobs,
    make_ready,
    measure_job,
    serving_key,
    start_reindex,
    state_of,
    vectors_by_model,
)

NEWER = dataclasses.replace(SPACE, encoder_version="2")
OTHER = dataclasses.replace(SPACE, base_repo="tiny/other")


def cut_over(database: Database, reindex_id: int, force: bool = False) -> Reindex:
    return cutover.cut_over(database, reindex_id, force=force, exact_bytes=EXACT_BYTES)


def ready(database: Database, measured=SPACE, models: int = 3) -> int:
    """A reindex that is ready; it turned the vectors of its models by a right angle."""
    for number in range(models):
        entries.put(database, f"a/m{number}", [1, number])
    reindex_id = start_reindex(database, space=measured)
    for number, job in enumerate(list_jobs(database, reindex_id)):
        measure_job(database, job, [-number, 1], measured)
    make_ready(database, reindex_id)
    return reindex_id


def test_new_space_serves_only_after_the_cutover(database: Database):
    reindex_id = ready(database)
    new_space = dataclasses.replace(SPACE, edition=reindex_id)
    with database.transaction() as session:
        assert vectors.get_encoding(session, "a/m1", features=(SPACE.feature,)).vector.tolist() == [1, 1]
        encoding = vectors.get_encoding(session, "a/m1", features=(SPACE.feature,), space_key=new_space.key)
        assert encoding.vector.tolist() == [-1, 1]

    assert cut_over(database, reindex_id).state == ReindexState.CUT_OVER

    assert serving_key(database) == new_space.key
    with database.transaction() as session:
        assert vectors.get_encoding(session, "a/m1", features=(SPACE.feature,)).vector.tolist() == [-1, 1]
        assert spaces.get_default(session).key == new_space.key
    assert len(vectors_by_model(database, SPACE)) == 3  # the old space is kept


def test_cutover_switches_the_clusters_of_searches_and_writes_no_row_of_a_model(database: Database, tmp_path: Path):
    reindex_id = ready(database, models=6)
    filters = []
    for space in (SPACE, dataclasses.replace(SPACE, edition=reindex_id)):
        _, row = cluster_service.request_run(database, Parameters("kmeans", clusters=1), space.key)
        ClusterRunner(database, tmp_path).run(row.id)
        filters.append(
            {cluster.cluster_id for cluster, _ in cluster_service.list_clusters(database, space.key).clusters}
        )
    before = row_versions(database)
    assert set(cluster_filters(database).values()) == filters[0]

    cut_over(database, reindex_id)

    assert set(cluster_filters(database).values()) == filters[1] != filters[0]
    assert row_versions(database) == before


def test_submissions_do_not_wait_for_a_cutover(database: Database, monkeypatch: pytest.MonkeyPatch):
    reindex_id = ready(database)
    entries.put(database, "a/m1", [9, 9], commit="two")  # copied and measured anew by the cutover
    submitted = []
    last_seq = feed.last_seq

    def submit(session: Session) -> int:
        with impatient_database(database) as impatient:
            submitted.extend(submit_repo(impatient, RepoRef(f"a/m{number}")).id for number in range(4))
        return last_seq(session)

    monkeypatch.setattr(feed, "last_seq", submit)  # called once the new spaces serve, before the commit
    cut_over(database, reindex_id)
    assert len(set(submitted)) == 4


def test_write_target_after_the_cutover_is_the_new_space(database: Database):
    reindex_id = ready(database)
    with database.transaction() as session:
        assert spaces.get_write_target(session, SPACE, 2).edition == 0
    cut_over(database, reindex_id)
    with database.transaction() as session:
        assert spaces.get_write_target(session, SPACE, 2).edition == reindex_id
        assert spaces.get_write_target(session, NEWER, 2).edition == 0


def test_space_of_a_new_contract_serves_only_after_a_cutover(database: Database):
    entries.put(database, "a/one", [1, 0])
    entries.put(database, "a/two", [1, 0], space=NEWER)
    assert serving_key(database) == SPACE.key
    reindex_id = start_reindex(database, ReindexSelection(outdated=True), NEWER)
    measure_job(database, *list_jobs(database, reindex_id), [0, 1], NEWER)
    make_ready(database, reindex_id)

    cut_over(database, reindex_id)

    assert serving_key(database) == dataclasses.replace(NEWER, edition=reindex_id).key
    assert set(vectors_by_model(database, dataclasses.replace(NEWER, edition=reindex_id))) == {"a/one", "a/two"}


def test_cutover_that_would_lose_models_needs_force(database: Database):
    for name in ("a/one", "a/two"):
        entries.put(database, name, [1, 0])
    reindex_id = start_reindex(database, space=NEWER)
    first, second = list_jobs(database, reindex_id)
    measure_job(database, first, [0, 1], NEWER)
    end_job(database, second, JobState.FAILED, RepoNotFound.code)
    make_ready(database, reindex_id)

    with pytest.raises(ReindexIncomplete, match="a/two"):
        cut_over(database, reindex_id)
    assert serving_key(database) == SPACE.key
    cut_over(database, reindex_id, force=True)
    assert serving_key(database) != SPACE.key


def test_cutover_is_refused_while_models_are_measured(database: Database):
    entries.put(database, "a/one", [1, 0])
    reindex_id = start_reindex(database)
    for force in (False, True):
        with pytest.raises(ReindexNotReady, match="measuring"):
            cut_over(database, reindex_id, force)


def test_cutover_backfills_the_last_vectors(database: Database):
    reindex_id = ready(database)
    entries.put(database, "a/late", [5, 1])
    cut_over(database, reindex_id)
    assert vectors_by_model(database, dataclasses.replace(SPACE, edition=reindex_id))["a/late"] == [5, 1]


def test_model_removed_during_the_reindex_stays_removed(database: Database):
    reindex_id = ready(database)
    with database.transaction() as session:
        feed.remove(session, models.get(session, "a/m0").id)
    cut_over(database, reindex_id)
    assert set(vectors_by_model(database, dataclasses.replace(SPACE, edition=reindex_id))) == {"a/m1", "a/m2"}


def test_model_state_follows_the_serving_space(database: Database):
    entries.put(database, "a/one", [1, 0])
    reindex_id = start_reindex(database)
    measure_job(database, *list_jobs(database, reindex_id), [0.1, 0], no_shift=True)
    make_ready(database, reindex_id)
    assert state_of(database, "a/one") == ModelState.INDEXED

    cut_over(database, reindex_id)
    assert state_of(database, "a/one") == ModelState.NO_SHIFT
    cutover.roll_back(database, reindex_id)
    assert state_of(database, "a/one") == ModelState.INDEXED


def test_rollback_backfills_the_vectors_stored_since_the_cutover(database: Database):
    reindex_id = ready(database)
    cut_over(database, reindex_id)
    entries.put(database, "a/since", [4, 1], space=dataclasses.replace(SPACE, edition=reindex_id))

    assert cutover.roll_back(database, reindex_id).state == ReindexState.ROLLED_BACK

    assert serving_key(database) == SPACE.key
    assert vectors_by_model(database, SPACE) == {"a/m0": [1, 0], "a/m1": [1, 1], "a/m2": [1, 2], "a/since": [4, 1]}


def test_rollback_to_another_contract_names_the_models_it_would_lose(database: Database):
    reindex_id = ready(database, NEWER)
    cut_over(database, reindex_id)
    entries.put(database, "a/since", [4, 1], space=dataclasses.replace(NEWER, edition=reindex_id))

    with pytest.raises(ReindexIncomplete, match="a/since"):
        cutover.roll_back(database, reindex_id)
    cutover.roll_back(database, reindex_id, force=True)

    assert serving_key(database) == SPACE.key
    with database.transaction() as session:  # it is still found by its name
        assert vectors.get_encoding(session, "a/since", features=(SPACE.feature,)).vector.tolist() == [4, 1]


@pytest.mark.parametrize(
    ("action", "state"),
    [(cutover.roll_back, ReindexState.ROLLED_BACK), (cutover.cancel, ReindexState.CANCELLED)],
    ids=["roll back", "cancel"],
)
def test_ending_a_reindex_before_the_cutover_discards_its_vectors(database: Database, action, state: ReindexState):
    for name in ("a/one", "a/two"):
        entries.put(database, name, [1, 0])
    reindex_id = start_reindex(database)
    first, second = list_jobs(database, reindex_id)
    measure_job(database, first, [0, 1])

    assert action(database, reindex_id).state == state
    while reindex_service.discard_page(database, reindex_id):
        pass

    assert vectors_by_model(database, dataclasses.replace(SPACE, edition=reindex_id)) == {}
    assert set(vectors_by_model(database, SPACE)) == {"a/one", "a/two"}
    with database.transaction() as session:
        assert jobs.get(session, second.id).state == JobState.CANCELLED
        assert reindexes.list_open(session) == []
    assert serving_key(database) == SPACE.key


def test_finished_reindex_cannot_be_ended_again(database: Database):
    reindex_id = ready(database)
    cutover.cancel(database, reindex_id)
    for action in (cutover.cancel, cutover.roll_back, cut_over):
        with pytest.raises(ReindexFinished):
            action(database, reindex_id)


def test_only_the_last_cutover_can_be_rolled_back(database: Database):
    first = ready(database)
    cut_over(database, first)
    second = start_reindex(database)
    for job in list_jobs(database, second):
        measure_job(database, job, [1, 1])
    make_ready(database, second)
    cut_over(database, second)

    with pytest.raises(ReindexFinished, match="Another reindex"):
        cutover.roll_back(database, first)
    cutover.roll_back(database, second)
    assert serving_key(database) == dataclasses.replace(SPACE, edition=first).key


def ready_with_a_move(database: Database) -> int:
    """A ready reindex that found another base for one of two models; the other base has a model already."""
    entries.put(database, "a/moves", [1, 0])
    entries.put(database, "a/stays", [1, 1])
    entries.put(database, "b/there", [3, 3], space=OTHER)
    with database.transaction() as session:
        entries.put_revision(session, "b/there", base=OTHER.base_repo)
    reindex_id = start_reindex(database, ReindexSelection(base=SPACE.base_repo))
    for job in list_jobs(database, reindex_id):
        moves = job.model.repo_id == "a/moves"
        measure_job(database, job, [0, 1], OTHER if moves else SPACE)
        if moves:
            with database.transaction() as session:
                revision = models.find_current_revision(session, job.model_id)
                new_base = {"base_repo": OTHER.base_repo, "base_sha": OTHER.base_sha, "evidence": {"declared": "x"}}
                reindexes.record_move(session, reindex_id, revision, kind="lora", **new_base)
    make_ready(database, reindex_id)
    return reindex_id


def base_of(database: Database, repo_id: str) -> str:
    with database.transaction() as session:
        return models.get(session, repo_id).revision.base_repo


def test_model_of_another_base_moves_with_the_cutover_and_back_with_the_rollback(database: Database):
    reindex_id = ready_with_a_move(database)
    new_space, new_other = (dataclasses.replace(space, edition=reindex_id) for space in (SPACE, OTHER))
    assert (base_of(database, "a/moves"), set(vectors_by_model(database, SPACE))) == (
        "tiny/base",
        {"a/moves", "a/stays"},
    )

    cut_over(database, reindex_id)

    assert base_of(database, "a/moves") == "tiny/other"
    assert set(vectors_by_model(database, new_space)) == set(vectors_by_model(database, SPACE)) == {"a/stays"}
    assert set(vectors_by_model(database, new_other)) == {"a/moves", "b/there"}

    cutover.roll_back(database, reindex_id)

    assert base_of(database, "a/moves") == "tiny/base"
    assert set(vectors_by_model(database, SPACE)) == {"a/moves", "a/stays"}
    assert set(vectors_by_model(database, OTHER)) == {"b/there"}


def test_reindex_is_ready_once_clusters_and_map_are_built(database: Database, tmp_path):
    rows = [[1, 0.01 * number] for number in range(6)] + [[0.01 * number, 1] for number in range(6)]
    for number, row in enumerate(rows):
        entries.put(database, f"a/m{number}", row)
    with database.transaction() as session:
        old = spaces.get_default(session).id
        cluster_runs.create(session, old, algorithm="kmeans", parameters=Parameters("kmeans", clusters=2).as_dict(),
                         requested_by="admin")  # fmt: skip
    ClusterRunner(database, tmp_path).run(old)
    MapRunner(database, tmp_path).run(old)
    reindex_id = start_reindex(database)
    for job, row in zip(list_jobs(database, reindex_id), rows, strict=True):
        measure_job(database, job, row)
    assert reindex_service.finish_measuring(database, reindex_id)
    while reindex_service.backfill_spaces(database, reindex_id):
        pass

    assert not readiness.make_ready(database, reindex_id, EXACT_BYTES)
    missing = readiness.list_missing_artifacts(database, reindex_id, EXACT_BYTES)
    assert {artifact["kind"] for artifact in missing} == {"clusters", "map"}
    with pytest.raises(ReindexNotReady, match="clusters, map"):
        cut_over(database, reindex_id)

    with database.transaction() as session:
        new = spaces.get(session, missing[0]["space"]).id
    ClusterRunner(database, tmp_path).run(new)
    MapRunner(database, tmp_path).run(new)
    assert readiness.make_ready(database, reindex_id, EXACT_BYTES)
    assert get_reindex(database, reindex_id).state == ReindexState.READY

    cut_over(database, reindex_id)
    with database.transaction() as session:
        assert cluster_runs.find_newest_current(session)[1].id == new
        assert maps.find_current_version(session, None).space_id == new


def test_large_space_needs_an_index(database: Database):
    for number in range(3):
        entries.put(database, f"a/m{number}", [1, number])
    reindex_id = start_reindex(database)
    for job in list_jobs(database, reindex_id):
        measure_job(database, job, [0, 1])
    assert reindex_service.finish_measuring(database, reindex_id)
    while reindex_service.backfill_spaces(database, reindex_id):
        pass
    assert not readiness.make_ready(database, reindex_id, exact_bytes=16)
    missing = readiness.list_missing_artifacts(database, reindex_id, 16)
    assert [artifact["kind"] for artifact in missing] == ["index"]


def test_report_compares_models_that_are_in_both_spaces(database: Database):
    reindex_id = ready(database, models=6)
    final, [pair] = readiness.get_drift_report(database, reindex_id)
    assert (final, pair["drift"]["models"], pair["lost_models"]["count"]) == (True, 6, 0)
    assert pair["old"] == SPACE.key
    assert pair["drift"]["norm_ratio"]["mean"] == pytest.approx(1)
    assert pair["drift"]["cosine"]["mean"] == pytest.approx(0, abs=1e-6)


def test_report_before_the_end_covers_what_is_measured_so_far(database: Database):
    for number in range(6):
        entries.put(database, f"a/m{number}", [1, number])
    reindex_id = start_reindex(database)
    for job in list_jobs(database, reindex_id)[:4]:
        measure_job(database, job, [0, 1])
    final, [pair] = readiness.get_drift_report(database, reindex_id)
    assert (final, pair["drift"]["models"], pair["lost_models"]["count"]) == (False, 4, 2)
