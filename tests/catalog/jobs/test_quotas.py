from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from catalog.database import Database
from catalog.errors import TooManyJobs
from catalog.jobs import control as job_control
from catalog.jobs.quotas import Quota
from catalog.jobs.repository import jobs
from catalog.jobs.submissions import submit_repo, submitted
from catalog.models.repo_ref import RepoRef
from catalog.tables import Priority


def submit(database: Database, name: str, quota: Quota | None) -> int:
    return submit_repo(database, RepoRef(f"owner/{name}"), quota).id


def test_one_job_too_many_is_refused_and_leaves_nothing_behind(database: Database):
    quota = Quota.of_key("key", 2)
    submit(database, "one", quota)
    submit(database, "two", quota)

    with pytest.raises(TooManyJobs) as refusal:
        submit(database, "three", quota)

    assert refusal.value.retry_after > 0
    with database.transaction() as session:
        assert session.execute(text("SELECT count(*) FROM models")).scalar_one() == 2


def test_a_job_that_is_over_makes_room(database: Database):
    quota = Quota.of_key("key", 1)
    job_control.cancel(database, submit(database, "one", quota))
    submit(database, "two", quota)


def test_asking_for_an_active_job_again_is_no_new_one(database: Database):
    quota = Quota.of_key("key", 1)
    assert submit(database, "one", quota) == submit(database, "one", quota)


def test_each_key_has_a_quota_and_all_without_a_key_share_one(database: Database):
    for key in ("one", "two", None):
        submit(database, f"of-{key}", Quota.of_key(key, 1))
    with pytest.raises(TooManyJobs):
        submit(database, "more", Quota.of_key(None, 1))


def test_a_crawl_counts_nowhere(database: Database):
    with database.transaction() as session:
        for number in range(5):
            submitted(session, RepoRef(f"owner/crawl-{number}"), Priority.CRAWL)
    submit(database, "mine", Quota.of_key(None, 1))


def test_of_a_key_its_hash_alone_is_stored(database: Database):
    job_id = submit(database, "one", Quota.of_key("my secret", 1))
    with database.transaction() as session:
        row = session.execute(text("SELECT jobs::text FROM jobs")).scalar_one()
        assert jobs.get(session, job_id).submitter == hashlib.sha256(b"my secret").hexdigest()
    assert "my secret" not in row


def test_requests_at_once_do_not_pass_the_limit_together(database: Database):
    barrier = threading.Barrier(8)

    def ask(number: int) -> bool:
        barrier.wait(60)
        try:
            submit(database, str(number), Quota.of_key("key", 3))
        except TooManyJobs:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 3
