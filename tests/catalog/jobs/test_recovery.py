"""Jobs of dead workers, and what their deaths count against."""

from __future__ import annotations

from catalog.database import Database
from catalog.jobs.repository import attempts, jobs, recovery, workers
from catalog.jobs.submissions import submit_repo
from catalog.models.repo_ref import RepoRef
from catalog.quarantine import repository as quarantine
from catalog.quarantine.repository import QuarantineKey
from catalog.tables import JobState
from tests.support import catalog as entries

MAX_DEATHS = 2
BASE = QuarantineKey.of_base("evil/base", "sha")


def die(database: Database, *job_ids: int, loading: bool = False, sha: str | None = None) -> recovery.RecoveredJobs:
    """Let a new worker die that runs these jobs, while it loads their base or while it runs them."""
    worker = entries.put_worker(database)
    for job_id in job_ids:
        entries.claim(database, job_id, worker)
    with database.transaction() as session:
        if sha is not None:
            for job_id in job_ids:
                attempts.record_sha(session, job_id, worker, sha)
        if loading:
            workers.start_loading(session, worker, "evil/base", "sha")
    with database.transaction() as session:
        return recovery.count_deaths(session, [worker], MAX_DEATHS)


def is_quarantined(database: Database, key: QuarantineKey) -> bool:
    with database.transaction() as session:
        return quarantine.find(session, key) is not None


def test_deaths_while_a_base_was_loaded_quarantine_the_base_and_no_job(database: Database):
    job = entries.put_job(database, "owner/model", base="evil/base")

    for _ in range(MAX_DEATHS):
        assert die(database, job.id, loading=True) == recovery.RecoveredJobs([job.id], [])

    assert is_quarantined(database, BASE)
    with database.transaction() as session:
        after = jobs.get(session, job.id)
    assert (after.state, after.worker_deaths) == (JobState.QUEUED, 0)
    assert not is_quarantined(database, QuarantineKey.of_job(after))


def test_death_beside_other_jobs_makes_suspects_and_quarantines_no_base(database: Database):
    first, second = entries.put_job(database, "a/one"), entries.put_job(database, "a/two")

    for _ in range(MAX_DEATHS):
        die(database, first.id, second.id, loading=True)
    assert not is_quarantined(database, BASE)
    with database.transaction() as session:
        assert jobs.get(session, first.id).worker_deaths == 2

    die(database, first.id, loading=True)

    assert is_quarantined(database, BASE)
    with database.transaction() as session:
        assert jobs.get(session, first.id).state == JobState.QUEUED


def test_death_is_counted_once(database: Database):
    job = entries.put_job(database)
    die(database, job.id, loading=True)
    with database.transaction() as session:
        for worker in range(1, 4):
            recovery.count_deaths(session, [worker], MAX_DEATHS)
    assert not is_quarantined(database, BASE)


def test_poison_job_quarantines_its_repo_at_the_commit_that_it_ran(database: Database):
    job = entries.put_job(database, "evil/model")

    for _ in range(MAX_DEATHS):
        recovered = die(database, job.id, sha="one")

    assert recovered.quarantined == [job.id]
    assert is_quarantined(database, QuarantineKey.of_repo("evil/model", "one"))
    assert submit_repo(database, RepoRef("evil/model", "one")).id == job.id
    assert submit_repo(database, RepoRef("evil/model")).id != job.id  # its head may be another commit by now


def test_repo_is_usable_without_the_base_on_which_workers_died(database: Database):
    job = entries.put_job(database, "good/model", base="evil/base")
    for _ in range(MAX_DEATHS):
        die(database, job.id)
    assert submit_repo(database, RepoRef("good/model"), base="evil/base").id == job.id
    assert submit_repo(database, RepoRef("good/model")).id != job.id
