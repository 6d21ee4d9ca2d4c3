"""What a reindex selects, queues, and carries over."""

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
from catalog.reindexes.service import Selection
from catalog.tables import JobState, ModelState, Priority, ReindexState, Stage
from tests.support import catalog as entries
from tests.support.catalog import SPACE, sha
from tests.support.reindexes import begin, end, finish, found, its_jobs, look, measure

NEWER = dataclasses.replace(SPACE, encoder_version="2")
OTHER = dataclasses.replace(SPACE, base_repo="tiny/other")


@pytest.fixture
def three(database: Database) -> Database:
    """Two models of one base and one of another, and one that failed before it was ever stored."""
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
        (Selection(everything=True), ["a/one", "a/still", "a/two", "b/other"]),
        (Selection(base="tiny/base"), ["a/one", "a/still", "a/two"]),
        (Selection(base="tiny/other"), ["b/other"]),
        (Selection(space=SPACE.key), ["a/one", "a/still"]),
        (Selection(space=NEWER.key), ["a/two"]),
        (Selection(state="no_shift"), ["a/still"]),
        (Selection(state="failed"), ["a/failed"]),
        (Selection(outdated=True), ["a/two", "b/other"]),
    ],
    ids=str,
)
def test_a_selection_is_of_these_models(three: Database, selection: Selection, expected: list[str]):
    reindex_id = begin(three, selection)
    assert sorted(job.model.repo_id for job in its_jobs(three, reindex_id)) == expected
    assert look(three, reindex_id).total == len(expected)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({}, InvalidInput),
        ({"everything": True, "outdated": True}, InvalidInput),
        ({"state": "pending"}, InvalidInput),
        ({"base": "no slash"}, InvalidRepoId),
    ],
    ids=str,
)
def test_a_selection_that_is_none_is_refused(given: dict, error: type):
    with pytest.raises(error):
        Selection(**given)


def test_a_space_that_nobody_knows_is_refused(database: Database):
    with pytest.raises(SpaceNotFound):
        reindex_service.start(database, Selection(space="0" * 64))


def test_one_reindex_is_active_at_a_time(database: Database):
    reindex_service.start(database, Selection(everything=True))
    with pytest.raises(ReindexActive):
        reindex_service.start(database, Selection(outdated=True))


def test_jobs_are_of_current_commits_and_less_urgent_than_people(database: Database):
    entries.put(database, "a/one", [1, 0], commit="old")
    entries.put(database, "a/one", [1, 0], commit="new")

    [job] = its_jobs(database, begin(database))

    assert (job.requested_revision, job.priority, job.measures_anew) == (sha("new"), Priority.CRAWL, True)


def test_a_model_that_was_never_stored_has_a_job_like_any_other(database: Database):
    model = entries.put_model(database)
    with database.transaction() as session:
        session.merge(model).state = ModelState.FAILED

    [job] = its_jobs(database, begin(database, Selection(state="failed")))

    assert (job.requested_revision, job.measures_anew) == (None, False)


def test_jobs_are_made_page_by_page(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reindex_service, "PAGE", 3)
    monkeypatch.setattr(reindex_service, "LOOKED_AT", 4)
    for number in range(8):
        entries.put(database, f"a/m{number}", [1, number])
    reindex_id = reindex_service.start(database, Selection(everything=True)).id
    made = []
    while reindex_service.queue(database, reindex_id, [SPACE]):
        made.append(look(database, reindex_id).queued)

    assert made == [3, 6, 8]
    assert look(database, reindex_id).stage == Stage.MEASURING
    assert len({job.model_id for job in its_jobs(database, reindex_id)}) == 8


def test_a_job_of_a_person_for_the_same_commit_is_another(database: Database):
    entries.put(database, "a/one", [1, 0])
    [mine] = its_jobs(database, begin(database))

    with database.transaction() as session:
        theirs, made = submissions.enqueue(session, session.merge(mine.model), mine.requested_revision, Priority.PERSON)

    assert made
    assert (theirs.id != mine.id, theirs.reindex_id) == (True, None)


def test_what_has_killed_workers_is_left_alone(database: Database):
    entries.put(database, "a/one", [1, 0])
    job, worker = entries.put_job(database, "a/one"), entries.put_worker(database)
    entries.claim(database, job.id, worker)
    with database.transaction() as session:
        attempts.fail(session, job.id, worker, Quarantined("It killed workers."))

    reindex_id = begin(database)

    assert (look(database, reindex_id).quarantined, its_jobs(database, reindex_id)) == (1, [])


def test_the_contract_is_that_of_the_worker_that_begins(database: Database):
    reindex_id = begin(database, space=NEWER)
    [told] = look(database, reindex_id).contract
    assert (told["encoder_version"], told["feature"]) == ("2", "delta_activations")


def test_a_reindex_waits_for_its_jobs(database: Database):
    entries.put(database, "a/one", [1, 0])
    reindex_id = begin(database)
    assert not reindex_service.await_jobs(database, reindex_id)
    measure(database, *its_jobs(database, reindex_id), [0, 1])
    assert reindex_service.await_jobs(database, reindex_id)


def test_what_was_not_selected_is_carried_over(database: Database):
    entries.put(database, "a/one", [1, 0])
    entries.put(database, "a/still", [0.1, 0], no_shift=True)
    reindex_id = begin(database, Selection(state="indexed"))
    measure(database, *its_jobs(database, reindex_id), [0, 1])

    row = finish(database, reindex_id)

    assert (row.state, row.carried) == (ReindexState.READY, 1)
    assert found(database, dataclasses.replace(SPACE, edition=reindex_id)) == {"a/one": [0, 1]}
    assert found(database, SPACE) == {"a/one": [1, 0]}


def test_what_failed_is_carried_over_and_told_by_its_error(database: Database):
    for name in ("a/one", "a/two"):
        entries.put(database, name, [1, 0])
    reindex_id = begin(database)
    first, second = its_jobs(database, reindex_id)
    measure(database, first, [0, 1])
    end(database, second, JobState.FAILED, RepoNotFound.code)

    finish(database, reindex_id)

    assert found(database, dataclasses.replace(SPACE, edition=reindex_id)) == {"a/one": [0, 1], "a/two": [1, 0]}
    with database.transaction() as session:
        [failed] = reindexes.failures(session, reindex_id)
    assert (failed.code, failed.count, failed.repo_ids) == ("repo_not_found", 1, ["a/two"])


def test_what_comes_meanwhile_is_carried_over(database: Database):
    entries.put(database, "a/one", [1, 0])
    reindex_id = begin(database)
    measure(database, *its_jobs(database, reindex_id), [0, 1])
    entries.put(database, "a/new", [1, 1])
    finish(database, reindex_id)
    entries.put(database, "a/late", [2, 1])
    entries.put(database, "a/one", [3, 1], commit="newer")

    reindex_service.carry(database, reindex_id)

    there = found(database, dataclasses.replace(SPACE, edition=reindex_id))
    assert there == {"a/one": [3, 1], "a/new": [1, 1], "a/late": [2, 1]}


def test_what_was_measured_under_the_new_contract_before_is_carried_over(database: Database):
    entries.put(database, "a/one", [1, 0])
    entries.put(database, "a/new", [0, 2], space=NEWER)
    reindex_id = begin(database, Selection(outdated=True), NEWER)
    [job] = its_jobs(database, reindex_id)
    assert job.model.repo_id == "a/one"
    measure(database, job, [0, 1], NEWER)

    finish(database, reindex_id)

    assert found(database, dataclasses.replace(NEWER, edition=reindex_id)) == {"a/one": [0, 1], "a/new": [0, 2]}


def test_vectors_of_another_contract_are_not_carried_over(database: Database):
    for name in ("a/one", "a/two"):
        entries.put(database, name, [1, 0])
    reindex_id = begin(database, space=NEWER)
    first, second = its_jobs(database, reindex_id)
    measure(database, first, [0, 1], NEWER)
    end(database, second, JobState.FAILED, RepoNotFound.code)

    row = finish(database, reindex_id)

    assert found(database, dataclasses.replace(NEWER, edition=reindex_id)) == {"a/one": [0, 1]}
    assert row.report[0]["lost"] == {"count": 1, "repo_ids": ["a/two"]}


def test_models_that_were_in_no_space_leave_nothing_to_switch_to(database: Database):
    model = entries.put_model(database)
    with database.transaction() as session:
        session.merge(model).state = ModelState.FAILED
    reindex_id = begin(database, Selection(state="failed"))
    end(database, *its_jobs(database, reindex_id))

    assert finish(database, reindex_id).state == ReindexState.SWITCHED


def test_a_job_of_a_reindex_is_retried_while_that_is_active(database: Database):
    entries.put(database, "a/one", [1, 0])
    reindex_id = begin(database)
    [job] = its_jobs(database, reindex_id)
    end(database, job, JobState.FAILED, RepoNotFound.code)

    assert job_control.retry_failed(database, RepoNotFound.code) == 1

    with database.transaction() as session:
        assert jobs.get(session, job.id).state == JobState.QUEUED
        reindexes.fail(session, reindex_id, RepoNotFound("Gone."))
    end(database, job, JobState.FAILED, RepoNotFound.code)
    assert job_control.retry_failed(database, RepoNotFound.code) == 0
    with pytest.raises(NotRetriable, match="which is over"):
        job_control.retry(database, job.id)


def test_a_person_who_submits_gets_a_job_that_is_of_no_reindex(database: Database):
    entries.put(database, "a/one", [1, 0])
    begin(database)
    assert submissions.submit_repo(database, RepoRef("a/one")).reindex_id is None
