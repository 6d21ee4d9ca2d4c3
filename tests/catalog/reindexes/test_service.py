"""What a reindex selects, queues and backfills."""

from __future__ import annotations

import dataclasses

import pytest

from catalog.database import Database
from catalog.errors import (
    InvalidInput,
    InvalidRepoId,
    NotRetriable,
    Quarantined,
    ReindexActive,
    RepoNotFound,
    SpaceNotFound,
)
from catalog.jobs import control as job_control
from catalog.jobs import submissions
from catalog.jobs.repository import attempts, jobs
from catalog.models.repo_ref import RepoRef
from catalog.reindexes import service as reindex_service
from catalog.reindexes.repository import reindexes
from catalog.reindexes.service import ReindexSelection
from catalog.tables import JobState, ModelState, Priority, ReindexState, Stage
from tests.support import catalog as entries
from tests.support.catalog import SPACE, sha
from tests.support.quarantine import put_quarantine
from tests.support.reindexes import (
    end_job,
    get_reindex,
    list_jobs,
    make_ready,
    measure_job,
    start_reindex,
    vectors_by_model,
)

NEWER = dataclasses.replace(SPACE, encoder_version="2")
OTHER = dataclasses.replace(SPACE, base_repo="tiny/other")


@pytest.fixture
def filled(database: Database) -> Database:
    """Three models of one base, one of another base, and one that failed before it was indexed."""
    entries.put(database, "a/one", [1, 0])
    entries.put(database, "a/still", [0.1, 0], no_shift=True)
    with database.transaction() as session:
        entries.put_revision(session, "b/other", base="tiny/other")
    entries.put(database, "a/two", [0, 1], space=NEWER)
    failed = entries.put_model(database, "a/failed")
    with database.transaction() as session:
        session.merge(failed).state = ModelState.FAILED
    return database


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (ReindexSelection(everything=True), ["a/one", "a/still", "a/two", "b/other"]),
        (ReindexSelection(base="tiny/base"), ["a/one", "a/still", "a/two"]),
        (ReindexSelection(base="tiny/other"), ["b/other"]),
        (ReindexSelection(space=SPACE.key), ["a/one", "a/still"]),
        (ReindexSelection(space=NEWER.key), ["a/two"]),
        (ReindexSelection(state="no_shift"), ["a/still"]),
        (ReindexSelection(state="failed"), ["a/failed"]),
        (ReindexSelection(outdated=True), ["a/two", "b/other"]),
    ],
    ids=str,
)
def test_reindex_creates_jobs_for_the_selected_models(
    filled: Database, selection: ReindexSelection, expected: list[str]
):
    reindex_id = start_reindex(filled, selection)
    assert sorted(job.model.repo_id for job in list_jobs(filled, reindex_id)) == expected
    assert get_reindex(filled, reindex_id).total == len(expected)


@pytest.mark.parametrize(
    ("criteria", "error"),
    [
        ({}, InvalidInput),
        ({"everything": True, "outdated": True}, InvalidInput),
        ({"state": "pending"}, InvalidInput),
        ({"base": "no slash"}, InvalidRepoId),
    ],
    ids=str,
)
def test_invalid_selection_is_rejected(criteria: dict, error: type):
    with pytest.raises(error):
        ReindexSelection(**criteria)


def test_unknown_space_is_rejected(database: Database):
    with pytest.raises(SpaceNotFound):
        reindex_service.create(database, ReindexSelection(space="0" * 64))


def test_second_active_reindex_is_rejected(database: Database):
    reindex_service.create(database, ReindexSelection(everything=True))
    with pytest.raises(ReindexActive):
        reindex_service.create(database, ReindexSelection(outdated=True))


def test_jobs_measure_current_commits_at_the_priority_of_a_crawl(database: Database):
    entries.put(database, "a/one", [1, 0], commit="old")
    entries.put(database, "a/one", [1, 0], commit="new")

    [job] = list_jobs(database, start_reindex(database))

    assert (job.requested_revision, job.priority, job.remeasures) == (sha("new"), Priority.CRAWL, True)


def test_model_that_was_never_indexed_gets_an_ordinary_job(database: Database):
    model = entries.put_model(database)
    with database.transaction() as session:
        session.merge(model).state = ModelState.FAILED

    [job] = list_jobs(database, start_reindex(database, ReindexSelection(state="failed")))

    assert (job.requested_revision, job.remeasures) == (None, False)


def test_jobs_are_created_in_pages(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reindex_service, "JOBS_PER_PAGE", 3)
    monkeypatch.setattr(reindex_service, "CANDIDATES_PER_PAGE", 4)
    for number in range(8):
        entries.put(database, f"a/m{number}", [1, number])
    reindex_id = reindex_service.create(database, ReindexSelection(everything=True)).id
    queued = []
    while reindex_service.queue_page(database, reindex_id, [SPACE]):
        queued.append(get_reindex(database, reindex_id).queued)

    assert queued == [3, 6, 8]
    assert get_reindex(database, reindex_id).stage == Stage.MEASURING
    assert len({job.model_id for job in list_jobs(database, reindex_id)}) == 8


def test_user_job_for_the_same_commit_is_a_separate_job(database: Database):
    entries.put(database, "a/one", [1, 0])
    [job] = list_jobs(database, start_reindex(database))

    with database.transaction() as session:
        user_job, created = submissions.enqueue(
            session, session.merge(job.model), job.requested_revision, Priority.USER
        )

    assert created
    assert (user_job.id != job.id, user_job.reindex_id) == (True, None)


def test_quarantined_model_is_skipped(database: Database):
    entries.put(database, "a/one", [1, 0])
    job, worker = entries.put_job(database, "a/one"), entries.put_worker(database)
    entries.claim(database, job.id, worker)
    with database.transaction() as session:
        attempts.fail(session, job.id, worker, Quarantined("It killed workers."))
        put_quarantine(session, "a/one")

    reindex_id = start_reindex(database)

    assert (get_reindex(database, reindex_id).quarantined, list_jobs(database, reindex_id)) == (1, [])


def test_contract_is_that_of_the_first_worker(database: Database):
    reindex_id = start_reindex(database, space=NEWER)
    [fields] = get_reindex(database, reindex_id).contract
    assert (fields["encoder_version"], fields["feature"]) == ("2", "delta_activations")


def test_reindex_waits_for_its_jobs(database: Database):
    entries.put(database, "a/one", [1, 0])
    reindex_id = start_reindex(database)
    assert not reindex_service.finish_measuring(database, reindex_id)
    measure_job(database, *list_jobs(database, reindex_id), [0, 1])
    assert reindex_service.finish_measuring(database, reindex_id)


def test_models_that_were_not_selected_are_backfilled(database: Database):
    entries.put(database, "a/one", [1, 0])
    entries.put(database, "a/still", [0.1, 0], no_shift=True)
    reindex_id = start_reindex(database, ReindexSelection(state="indexed"))
    measure_job(database, *list_jobs(database, reindex_id), [0, 1])

    row = make_ready(database, reindex_id)

    assert (row.state, row.backfilled) == (ReindexState.READY, 1)
    assert vectors_by_model(database, dataclasses.replace(SPACE, edition=reindex_id)) == {"a/one": [0, 1]}
    assert vectors_by_model(database, SPACE) == {"a/one": [1, 0]}


def test_failed_models_are_backfilled_and_listed_by_error(database: Database):
    for name in ("a/one", "a/two"):
        entries.put(database, name, [1, 0])
    reindex_id = start_reindex(database)
    first, second = list_jobs(database, reindex_id)
    measure_job(database, first, [0, 1])
    end_job(database, second, JobState.FAILED, RepoNotFound.code)

    make_ready(database, reindex_id)

    assert vectors_by_model(database, dataclasses.replace(SPACE, edition=reindex_id)) == {
        "a/one": [0, 1],
        "a/two": [1, 0],
    }
    with database.transaction() as session:
        [failed] = reindexes.list_failures(session, reindex_id)
    assert (failed.code, failed.count, failed.repo_ids) == ("repo_not_found", 1, ["a/two"])


def test_models_added_during_the_reindex_are_backfilled(database: Database):
    entries.put(database, "a/one", [1, 0])
    reindex_id = start_reindex(database)
    measure_job(database, *list_jobs(database, reindex_id), [0, 1])
    entries.put(database, "a/new", [1, 1])
    make_ready(database, reindex_id)
    entries.put(database, "a/late", [2, 1])
    entries.put(database, "a/one", [3, 1], commit="newer")

    reindex_service.backfill_spaces(database, reindex_id)

    vectors = vectors_by_model(database, dataclasses.replace(SPACE, edition=reindex_id))
    assert vectors == {"a/one": [3, 1], "a/new": [1, 1], "a/late": [2, 1]}


def test_earlier_vectors_of_the_new_contract_are_backfilled(database: Database):
    entries.put(database, "a/one", [1, 0])
    entries.put(database, "a/new", [0, 2], space=NEWER)
    reindex_id = start_reindex(database, ReindexSelection(outdated=True), NEWER)
    [job] = list_jobs(database, reindex_id)
    assert job.model.repo_id == "a/one"
    measure_job(database, job, [0, 1], NEWER)

    make_ready(database, reindex_id)

    assert vectors_by_model(database, dataclasses.replace(NEWER, edition=reindex_id)) == {
        "a/one": [0, 1],
        "a/new": [0, 2],
    }


def test_vectors_of_another_contract_are_not_backfilled(database: Database):
    for name in ("a/one", "a/two"):
        entries.put(database, name, [1, 0])
    reindex_id = start_reindex(database, space=NEWER)
    first, second = list_jobs(database, reindex_id)
    measure_job(database, first, [0, 1], NEWER)
    end_job(database, second, JobState.FAILED, RepoNotFound.code)

    row = make_ready(database, reindex_id)

    assert vectors_by_model(database, dataclasses.replace(NEWER, edition=reindex_id)) == {"a/one": [0, 1]}
    assert row.report[0]["lost_models"] == {"count": 1, "repo_ids": ["a/two"]}


def test_reindex_of_models_that_were_in_no_space_ends_by_itself(database: Database):
    model = entries.put_model(database)
    with database.transaction() as session:
        session.merge(model).state = ModelState.FAILED
    reindex_id = start_reindex(database, ReindexSelection(state="failed"))
    end_job(database, *list_jobs(database, reindex_id))

    assert make_ready(database, reindex_id).state == ReindexState.CUT_OVER


def test_job_of_a_reindex_can_be_retried_while_the_reindex_is_active(database: Database):
    entries.put(database, "a/one", [1, 0])
    reindex_id = start_reindex(database)
    [job] = list_jobs(database, reindex_id)
    end_job(database, job, JobState.FAILED, RepoNotFound.code)

    assert job_control.retry_failed(database, RepoNotFound.code) == 1

    with database.transaction() as session:
        assert jobs.get(session, job.id).state == JobState.QUEUED
        reindexes.fail(session, reindex_id, RepoNotFound("Gone."))
    end_job(database, job, JobState.FAILED, RepoNotFound.code)
    assert job_control.retry_failed(database, RepoNotFound.code) == 0
    with pytest.raises(NotRetriable, match="has ended"):
        job_control.retry(database, job.id)


def test_user_submission_gets_a_job_of_no_reindex(database: Database):
    entries.put(database, "a/one", [1, 0])
    start_reindex(database)
    assert submissions.submit_repo(database, RepoRef("a/one")).reindex_id is None
