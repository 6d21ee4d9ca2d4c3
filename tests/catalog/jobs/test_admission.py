"""Admission of claimed jobs, with vectors stored as a worker would store them."""

from __future__ import annotations

import dataclasses

import pytest
from sqlalchemy import update

from catalog.auth.repository import access
from catalog.auth.viewer import ADMIN
from catalog.database import Database
from catalog.errors import EncoderContractMismatch, RevisionNotFound
from catalog.jobs.admission import Admission, Outcome, Visibility, admit
from catalog.jobs.repository import attempts, jobs
from catalog.models.repository import models
from catalog.reindexes import cutover
from catalog.spaces.contract import Space
from catalog.tables import Job, JobState, ModelState, Revision, Source
from tests.support import catalog as entries
from tests.support.reindexes import contract, list_jobs, start_reindex

REPO, OWNER = "o/n", "my key"
OTHER = dataclasses.replace(entries.SPACE, encoder_version="2")


class Worker:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.id = entries.put_worker(database)

    def claim(self, job: Job) -> Job:
        assert entries.claim(self.database, job.id, self.id) == [job.id]
        return get_job(self.database, job.id)

    def admit(
        self,
        job: Job,
        commit: str = "one",
        visibility: Visibility = Visibility.UNCHANGED,
        space: Space = entries.SPACE,
        is_head: bool = True,
    ) -> Admission:
        with self.database.transaction() as session:
            sha, measured = entries.sha(commit), contract(space)
            return admit(session, job, self.id, sha, measured, is_head=is_head, visibility=visibility)


@pytest.fixture
def worker(database: Database) -> Worker:
    return Worker(database)


def get_job(database: Database, job_id: int) -> Job:
    with database.transaction() as session:
        return jobs.get(session, job_id, ADMIN)


def current_sha(database: Database) -> str:
    with database.transaction() as session:
        return models.get(session, REPO).revision.sha


def test_commit_without_vectors_proceeds(database: Database, worker: Worker):
    job = worker.claim(entries.put_job(database, REPO))
    assert worker.admit(job).outcome == Outcome.PROCEED
    assert get_job(database, job.id).state == JobState.FETCHING


def test_indexed_commit_finishes_its_job(database: Database, worker: Worker):
    entries.put(database, REPO, [1, 2])
    job = worker.claim(entries.put_job(database, REPO))
    assert worker.admit(job).outcome == Outcome.DONE
    assert (get_job(database, job.id).state, get_job(database, job.id).sha) == (JobState.DONE, entries.sha("one"))


@pytest.mark.parametrize(("is_head", "outcome"), [(True, Outcome.PROCEED), (False, Outcome.DONE)])
def test_earlier_commit_is_measured_again_only_if_it_is_the_head(
    database: Database, worker: Worker, is_head: bool, outcome: Outcome
):
    for commit in ("one", "two"):
        entries.put(database, REPO, [1, 2], commit=commit)
    assert worker.admit(worker.claim(entries.put_job(database, REPO)), is_head=is_head).outcome == outcome
    assert current_sha(database) == entries.sha("two")


def test_every_commit_of_a_private_model_becomes_current(database: Database, worker: Worker):
    for commit in ("one", "two"):
        entries.put_private(database, REPO, [1, 2], OWNER, commit=commit)
    job = worker.claim(entries.put_private_job(database, REPO, OWNER))
    assert worker.admit(job, is_head=False).outcome == Outcome.PROCEED


def test_commit_indexed_under_another_contract_proceeds(database: Database, worker: Worker):
    entries.put(database, REPO, [1, 2])
    job = worker.claim(entries.put_job(database, REPO))
    assert worker.admit(job, space=OTHER).proceeds


def test_commit_indexed_on_the_requested_base_finishes_its_job(database: Database, worker: Worker):
    entries.put(database, REPO, [1, 2])
    job = worker.claim(entries.put_job(database, REPO, base=entries.BASE))
    assert worker.admit(job).outcome == Outcome.DONE


def test_commit_indexed_on_another_base_than_the_requested_one_proceeds(database: Database, worker: Worker):
    entries.put(database, REPO, [1, 2])
    assert worker.admit(worker.claim(entries.put_job(database, REPO, base="o/other"))).proceeds


@pytest.mark.parametrize(("claim", "outcome"), [("submitted", Outcome.DONE), ("declared", Outcome.PROCEED)])
def test_requested_mirror_counts_as_measured_only_if_it_led_to_the_base(
    database: Database, worker: Worker, claim: str, outcome: Outcome
):
    entries.put(database, REPO, [1, 2])
    with database.transaction() as session:
        evidence = {"claim": claim, "submitted_base": "o/mirror"}
        session.execute(update(Revision).values(base_evidence=evidence))
    assert worker.admit(worker.claim(entries.put_job(database, REPO, base="o/mirror"))).outcome == outcome


def test_public_commit_on_another_base_proceeds_for_a_job_with_a_token(database: Database, worker: Worker):
    entries.put(database, REPO, [1, 2])
    with database.transaction() as session:
        model = models.get_or_create(session, REPO, Source.HUB, private=True)
        job, _ = jobs.submit_private(session, model, None, base="o/other", viewer=OWNER, token=b"sealed")
    assert worker.admit(worker.claim(job), visibility=Visibility.UNDECIDED).proceeds


def test_removed_model_proceeds_despite_stored_vectors(database: Database, worker: Worker):
    model_id = entries.put(database, REPO, [1, 2])
    with database.transaction() as session:
        models.set_state(session, model_id, ModelState.REMOVED)
    assert worker.admit(worker.claim(entries.put_job(database, REPO))).proceeds


def test_lost_job_is_not_finished(database: Database, worker: Worker):
    entries.put(database, REPO, [1, 2])
    job = worker.claim(entries.put_job(database, REPO))
    with database.transaction() as session:
        attempts.release(session, [worker.id])
    assert not worker.admit(job).proceeds
    assert get_job(database, job.id).state == JobState.QUEUED


@pytest.mark.parametrize("visibility", [Visibility.PRIVATE, Visibility.UNDECIDED])
def test_repo_that_needed_a_token_belongs_to_the_private_model(
    database: Database, worker: Worker, visibility: Visibility
):
    job = worker.claim(entries.put_private_job(database, REPO, OWNER))
    assert worker.admit(worker.admit(job, visibility=Visibility.PUBLIC).job, visibility=visibility).job.model.private


def test_public_repo_read_with_a_token_belongs_to_the_public_model(database: Database, worker: Worker):
    job = worker.claim(entries.put_private_job(database, REPO, OWNER))
    admission = worker.admit(job, visibility=Visibility.PUBLIC)
    assert (admission.outcome, admission.job.model.private) == (Outcome.PROCEED, False)


def test_public_commit_stays_public_for_a_job_with_a_token(database: Database, worker: Worker):
    entries.put(database, REPO, [1, 2])
    job = worker.claim(entries.put_private_job(database, REPO, OWNER))
    assert worker.admit(job, visibility=Visibility.PRIVATE).outcome == Outcome.DONE
    assert not get_job(database, job.id).model.private


def test_indexed_private_model_is_shared_with_the_next_reader(database: Database, worker: Worker):
    model_id = entries.put_private(database, REPO, [1, 2], "your key")
    job = worker.claim(entries.put_private_job(database, REPO, OWNER))
    assert worker.admit(job, visibility=Visibility.PRIVATE).outcome == Outcome.DONE
    with database.transaction() as session:
        assert {entry.submitter for entry, _ in access.list_access(session, model_id)} == {"your key", OWNER}


def test_lost_job_with_a_token_is_reported_as_lost(database: Database, worker: Worker):
    job = worker.claim(entries.put_private_job(database, REPO, OWNER))
    with database.transaction() as session:
        attempts.release(session, [worker.id])
    assert worker.admit(job, visibility=Visibility.PUBLIC).outcome == Outcome.LOST
    assert get_job(database, job.id).model.private


def reindexing(database: Database, worker: Worker) -> tuple[int, Job]:
    """The id of a reindex under another contract, and its only job, claimed."""
    entries.put(database, REPO, [1, 2])
    reindex_id = start_reindex(database, space=OTHER)
    [job] = list_jobs(database, reindex_id)
    return reindex_id, worker.claim(job)


def test_reindex_job_proceeds_although_its_commit_is_indexed(database: Database, worker: Worker):
    _, job = reindexing(database, worker)
    assert worker.admit(job, space=OTHER).proceeds


def test_job_of_a_cancelled_reindex_is_obsolete(database: Database, worker: Worker):
    reindex_id, job = reindexing(database, worker)
    cutover.cancel(database, reindex_id)
    assert worker.admit(job, space=OTHER).outcome == Outcome.OBSOLETE
    assert get_job(database, job.id).state == JobState.CANCELLED


def test_reindex_job_of_a_replaced_revision_is_obsolete(database: Database, worker: Worker):
    _, job = reindexing(database, worker)
    entries.put(database, REPO, [3, 4], commit="two")
    assert worker.admit(job, space=OTHER).outcome == Outcome.OBSOLETE
    assert get_job(database, job.id).state == JobState.DONE


def test_worker_with_another_contract_than_the_reindex_is_refused(database: Database, worker: Worker):
    _, job = reindexing(database, worker)
    with pytest.raises(EncoderContractMismatch):
        worker.admit(job)


def test_changed_folder_fails_its_reindex_job(database: Database, worker: Worker):
    _, job = reindexing(database, worker)
    with pytest.raises(RevisionNotFound):
        worker.admit(job, "two", space=OTHER)
