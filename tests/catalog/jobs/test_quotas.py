from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from catalog.auth.viewer import PUBLIC
from catalog.database import Database
from catalog.errors import TooManyJobs
from catalog.jobs import control as job_control
from catalog.jobs.quotas import MIN_EXCLUSIVE, Quota
from catalog.jobs.submissions import enqueue_exclusive, enqueue_repo, submit_repo
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import models
from catalog.tables import Priority, Source


def submit(database: Database, name: str, quota: Quota | None) -> int:
    return submit_repo(database, RepoRef(f"owner/{name}"), quota).id


def test_job_over_the_quota_is_refused_and_rolled_back(database: Database):
    quota = Quota("key", 2)
    submit(database, "one", quota)
    submit(database, "two", quota)

    with pytest.raises(TooManyJobs) as refusal:
        submit(database, "three", quota)

    assert refusal.value.retry_after > 0
    with database.transaction() as session:
        assert session.execute(text("SELECT count(*) FROM models")).scalar_one() == 2


def test_finished_job_does_not_count(database: Database):
    quota = Quota("key", 1)
    job_control.cancel(database, submit(database, "one", quota))
    submit(database, "two", quota)


def test_resubmission_of_an_active_job_does_not_count_twice(database: Database):
    quota = Quota("key", 1)
    assert submit(database, "one", quota) == submit(database, "one", quota)


def test_each_key_has_its_own_quota(database: Database):
    for key in ("one", "two"):
        submit(database, f"of-{key}", Quota(key, 1))
    with pytest.raises(TooManyJobs):
        submit(database, "more", Quota("one", 1))


def test_crawl_jobs_do_not_count(database: Database):
    with database.transaction() as session:
        for number in range(5):
            enqueue_repo(session, RepoRef(f"owner/crawl-{number}"), Priority.CRAWL)
    submit(database, "mine", Quota("anonymous", 1))


def test_concurrent_requests_cannot_exceed_the_quota(database: Database):
    barrier = threading.Barrier(8)

    def try_submit(number: int) -> bool:
        barrier.wait(60)
        try:
            submit(database, str(number), Quota("key", 3))
        except TooManyJobs:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(try_submit, range(8))) == 3


def submit_exclusive(database: Database, name: str, quota: Quota) -> int:
    with database.transaction() as session:
        model = models.get_or_create(session, f"task/{name}", Source.HUB)
        return enqueue_exclusive(session, model, "tiny/base", quota, PUBLIC).id


def test_exclusive_jobs_have_a_smaller_quota(database: Database):
    quota = Quota("key", 10_000)
    for number in range(10_000 // 100):
        submit_exclusive(database, str(number), quota)
    with pytest.raises(TooManyJobs, match="100 active tasks"):
        submit_exclusive(database, "one more", quota)
    submit(database, "ordinary", quota)
    submit_exclusive(database, "of another key", Quota("other", 10_000))


def test_small_quota_leaves_room_for_some_exclusive_jobs(database: Database):
    quota = Quota("key", 50)
    for number in range(MIN_EXCLUSIVE):
        submit_exclusive(database, str(number), quota)
    with pytest.raises(TooManyJobs, match=f"{MIN_EXCLUSIVE} active tasks"):
        submit_exclusive(database, "one more", quota)
