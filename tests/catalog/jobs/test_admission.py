"""Whether a job that a worker has claimed is to be measured, with vectors stored as a worker would have."""

from __future__ import annotations

import dataclasses

import pytest

from catalog.auth import repository as access
from catalog.auth.viewer import EVERYTHING
from catalog.database import Database
from catalog.errors import ContractDiffers, RevisionNotFound
from catalog.jobs.admission import Admission, Outcome, Visibility, admit
from catalog.jobs.repository import attempts, jobs
from catalog.models.repository import models
from catalog.reindexes import cutover
from catalog.spaces.contract import Space
from catalog.tables import Job, JobState, ModelState
from tests.support import catalog as entries
from tests.support.reindexes import begin, contract, its_jobs

REPO, ME = "o/n", "my key"
OTHER = dataclasses.replace(entries.SPACE, encoder_version="2")


class Worker:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.id = entries.put_worker(database)

    def claim(self, job: Job) -> Job:
        assert entries.claim(self.database, job.id, self.id) == [job.id]
        return look(self.database, job.id)

    def admit(
        self,
        job: Job,
        commit: str = "one",
        visibility: Visibility = Visibility.UNCHANGED,
        space: Space = entries.SPACE,
    ) -> Admission:
        with self.database.transaction() as session:
            sha, measured = entries.sha(commit), contract(space)
            return admit(session, job, self.id, sha, measured, visibility=visibility)


@pytest.fixture
def worker(database: Database) -> Worker:
    return Worker(database)


def look(database: Database, job_id: int) -> Job:
    with database.transaction() as session:
        return jobs.get(session, job_id, EVERYTHING)


def current(database: Database) -> str:
    with database.transaction() as session:
        return models.get(session, REPO).revision.sha


def test_a_commit_without_vectors_proceeds(database: Database, worker: Worker):
    job = worker.claim(entries.put_job(database, REPO))
    assert worker.admit(job).outcome == Outcome.PROCEED
    assert look(database, job.id).state == JobState.FETCHING


def test_a_commit_that_is_indexed_ends_its_job(database: Database, worker: Worker):
    entries.put(database, REPO, [1, 2])
    job = worker.claim(entries.put_job(database, REPO))
    assert worker.admit(job).outcome == Outcome.DONE
    assert (look(database, job.id).state, look(database, job.id).sha) == (JobState.DONE, entries.sha("one"))


def test_an_earlier_commit_that_was_indexed_becomes_the_current_one_again(database: Database, worker: Worker):
    for commit in ("one", "two"):
        entries.put(database, REPO, [1, 2], commit=commit)
    assert worker.admit(worker.claim(entries.put_job(database, REPO))).outcome == Outcome.DONE
    assert current(database) == entries.sha("one")


def test_a_commit_that_was_indexed_under_another_contract_proceeds(database: Database, worker: Worker):
    entries.put(database, REPO, [1, 2])
    job = worker.claim(entries.put_job(database, REPO))
    assert worker.admit(job, space=OTHER).proceeds


def test_a_model_that_was_removed_proceeds_whatever_was_stored_of_it(database: Database, worker: Worker):
    model_id = entries.put(database, REPO, [1, 2])
    with database.transaction() as session:
        models.set_state(session, model_id, ModelState.REMOVED)
    assert worker.admit(worker.claim(entries.put_job(database, REPO))).proceeds


def test_a_job_that_was_taken_away_ends_nothing(database: Database, worker: Worker):
    entries.put(database, REPO, [1, 2])
    job = worker.claim(entries.put_job(database, REPO))
    with database.transaction() as session:
        attempts.release(session, [worker.id])
    assert not worker.admit(job).proceeds
    assert look(database, job.id).state == JobState.QUEUED


@pytest.mark.parametrize("visibility", [Visibility.PRIVATE, Visibility.UNDECIDED])
def test_what_a_token_was_needed_for_is_of_the_private_model(
    database: Database, worker: Worker, visibility: Visibility
):
    job = worker.claim(entries.put_private_job(database, REPO, ME))
    assert worker.admit(worker.admit(job, visibility=Visibility.PUBLIC).job, visibility=visibility).job.model.private


def test_what_turned_out_to_be_public_is_of_the_public_model(database: Database, worker: Worker):
    job = worker.claim(entries.put_private_job(database, REPO, ME))
    admission = worker.admit(job, visibility=Visibility.PUBLIC)
    assert (admission.outcome, admission.job.model.private) == (Outcome.PROCEED, False)


def test_a_commit_that_is_public_already_is_so_for_a_job_with_a_token(database: Database, worker: Worker):
    entries.put(database, REPO, [1, 2])
    job = worker.claim(entries.put_private_job(database, REPO, ME))
    assert worker.admit(job, visibility=Visibility.PRIVATE).outcome == Outcome.DONE
    assert not look(database, job.id).model.private


def test_a_private_model_that_is_indexed_is_seen_by_the_next_who_may_read_it(database: Database, worker: Worker):
    model_id = entries.put_private(database, REPO, [1, 2], "your key")
    job = worker.claim(entries.put_private_job(database, REPO, ME))
    assert worker.admit(job, visibility=Visibility.PRIVATE).outcome == Outcome.DONE
    with database.transaction() as session:
        assert {each.submitter for each in access.granted(session, model_id)} == {"your key", ME}


def test_a_job_with_a_token_that_was_taken_away_is_lost(database: Database, worker: Worker):
    job = worker.claim(entries.put_private_job(database, REPO, ME))
    with database.transaction() as session:
        attempts.release(session, [worker.id])
    assert worker.admit(job, visibility=Visibility.PUBLIC).outcome == Outcome.LOST
    assert look(database, job.id).model.private


def reindexing(database: Database, worker: Worker) -> tuple[int, Job]:
    """A reindex under another contract, and its only job."""
    entries.put(database, REPO, [1, 2])
    reindex_id = begin(database, space=OTHER)
    [job] = its_jobs(database, reindex_id)
    return reindex_id, worker.claim(job)


def test_what_a_reindex_measures_anew_proceeds_although_it_is_indexed(database: Database, worker: Worker):
    _, job = reindexing(database, worker)
    assert worker.admit(job, space=OTHER).proceeds


def test_a_job_of_a_reindex_that_was_cancelled_is_obsolete(database: Database, worker: Worker):
    reindex_id, job = reindexing(database, worker)
    cutover.cancel(database, reindex_id)
    assert worker.admit(job, space=OTHER).outcome == Outcome.OBSOLETE
    assert look(database, job.id).state == JobState.CANCELLED


def test_a_job_of_a_reindex_whose_model_is_at_another_revision_by_now_is_obsolete(database: Database, worker: Worker):
    _, job = reindexing(database, worker)
    entries.put(database, REPO, [3, 4], commit="two")
    assert worker.admit(job, space=OTHER).outcome == Outcome.OBSOLETE
    assert look(database, job.id).state == JobState.DONE


def test_a_worker_that_measures_something_else_than_the_reindex_says_so(database: Database, worker: Worker):
    _, job = reindexing(database, worker)
    with pytest.raises(ContractDiffers):
        worker.admit(job)


def test_a_folder_that_holds_other_files_than_a_reindex_asked_for_says_so(database: Database, worker: Worker):
    _, job = reindexing(database, worker)
    with pytest.raises(RevisionNotFound):
        worker.admit(job, "two", space=OTHER)
