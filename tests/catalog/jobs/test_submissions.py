from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from app.deployment.embedded import EmbeddedServers
from catalog.database import Database
from catalog.errors import FolderUnreadable, InvalidRepoId, InvalidRevision, NameTaken
from catalog.jobs.quotas import Quota
from catalog.jobs.repository import attempts
from catalog.jobs.submissions import is_finished, submit_folder, submit_repo
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import models
from catalog.queue import ENCODE_QUEUE
from catalog.tables import Job, JobState, ModelState, Source
from tests.support import catalog as entries


@pytest.fixture
def broker(database: Database, servers: EmbeddedServers) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(servers.redis_url) as broker:
        yield broker


def finish(database: Database, job: Job, commit: str) -> None:
    """Finish the job, with a vector of the commit stored."""
    worker = entries.put_worker(database)
    entries.claim(database, job.id, worker)
    entries.put(database, job.model.repo_id, [1, 2], commit=commit)
    with database.transaction() as session:
        assert attempts.finish(session, job.id, worker, entries.sha(commit))


@pytest.mark.parametrize("revision", ["refs/pr/1", "refs/heads/main"])
def test_ref_is_refused(database: Database, revision: str):
    """Anyone can open a pull request on a repo of others."""
    with pytest.raises(InvalidRevision, match="pull request"):
        submit_repo(database, RepoRef("a/b", revision))


def test_submitted_repo_is_queued_with_one_message(database: Database, broker: redis.Redis):
    job = submit_repo(database, RepoRef("a/b", "main"))

    assert (job.model.repo_id, job.requested_revision, job.state) == ("a/b", "main", JobState.QUEUED)
    assert job.model.state == ModelState.PENDING
    assert broker.llen(ENCODE_QUEUE) == 1


def test_resubmission_returns_the_same_job_and_sends_no_message(database: Database, broker: redis.Redis):
    first = submit_repo(database, RepoRef("a/b"))
    second = submit_repo(database, RepoRef("a/b"))

    assert first.id == second.id
    assert broker.llen(ENCODE_QUEUE) == 1


def test_each_revision_is_a_job_of_its_own(database: Database):
    job_ids = [submit_repo(database, RepoRef("a/b", revision)).id for revision in (None, "main", "v1")]
    assert len(set(job_ids)) == 3


def test_concurrent_submissions_create_one_job(database: Database, broker: redis.Redis):
    with ThreadPoolExecutor(8) as pool:
        job_ids = list(pool.map(lambda _: submit_repo(database, RepoRef("a/b")).id, range(24)))

    assert len(set(job_ids)) == 1
    assert broker.llen(ENCODE_QUEUE) == 1


def test_finished_job_does_not_block_a_new_one(database: Database):
    first = submit_repo(database, RepoRef("a/b"))
    finish(database, first, "one")

    assert submit_repo(database, RepoRef("a/b")).id != first.id


def test_indexed_commit_returns_the_job_that_measured_it(database: Database, broker: redis.Redis):
    first = submit_repo(database, RepoRef("a/b"))
    finish(database, first, "one")
    broker.flushdb()

    resubmitted = submit_repo(database, RepoRef("a/b", entries.sha("one")))

    assert (resubmitted.id, is_finished(resubmitted)) == (first.id, True)
    assert broker.llen(ENCODE_QUEUE) == 0


def test_unindexed_commit_is_queued(database: Database):
    finish(database, submit_repo(database, RepoRef("a/b")), "one")

    assert submit_repo(database, RepoRef("a/b", entries.sha("two"))).state == JobState.QUEUED


def test_replaced_commit_is_queued_again(database: Database):
    finish(database, submit_repo(database, RepoRef("a/b")), "one")
    finish(database, submit_repo(database, RepoRef("a/b")), "two")

    assert submit_repo(database, RepoRef("a/b", entries.sha("one"))).state == JobState.QUEUED


def test_removed_commit_is_queued_again(database: Database):
    job = submit_repo(database, RepoRef("a/b"))
    finish(database, job, "one")
    entries.remove(database, job.model_id)

    assert submit_repo(database, RepoRef("a/b", entries.sha("one"))).state == JobState.QUEUED


def test_base_of_a_submission_is_stored_with_its_job(database: Database):
    job = submit_repo(database, RepoRef("a/b"), base="o/base")
    assert (job.requested_base, job.base_hint) == ("o/base", "o/base")


def test_each_base_is_a_job_of_its_own(database: Database):
    job_ids = [submit_repo(database, RepoRef("a/b"), base=base).id for base in ("o/one", "o/two", "o/one")]
    assert job_ids[0] == job_ids[2] != job_ids[1]


def test_submission_without_a_base_returns_the_active_job_with_one(database: Database):
    job = submit_repo(database, RepoRef("a/b"), base="o/base")
    assert submit_repo(database, RepoRef("a/b")).id == job.id


def test_base_is_queued_beside_a_job_without_one(database: Database):
    first = submit_repo(database, RepoRef("a/b"))
    assert submit_repo(database, RepoRef("a/b"), base="o/base").id != first.id


def test_token_submission_with_another_base_is_a_job_of_its_own(database: Database):
    quota, ref = Quota("me", 10), RepoRef("a/b")
    job_ids = [submit_repo(database, ref, quota, b"sealed", base).id for base in ("o/one", "o/two", "o/one", None)]
    assert job_ids[0] == job_ids[2] != job_ids[1]
    assert job_ids[3] in job_ids[:2]


def test_concurrent_submissions_of_one_base_create_one_job(database: Database):
    with ThreadPoolExecutor(8) as pool:
        submitted = pool.map(lambda _: submit_repo(database, RepoRef("a/b"), base="o/base").id, range(24))
    assert len(set(submitted)) == 1


@pytest.mark.parametrize("base", [None, entries.BASE])
def test_indexed_commit_is_not_queued_again_for_its_own_base(database: Database, base: str | None):
    first = submit_repo(database, RepoRef("a/b"))
    finish(database, first, "one")
    assert submit_repo(database, RepoRef("a/b", entries.sha("one")), base=base).id == first.id


def test_indexed_commit_is_queued_again_for_another_base(database: Database):
    finish(database, submit_repo(database, RepoRef("a/b")), "one")
    job = submit_repo(database, RepoRef("a/b", entries.sha("one")), base="o/other")
    assert (job.state, job.requested_base) == (JobState.QUEUED, "o/other")


@pytest.mark.parametrize("base", ["", "a/b/c", "../x", "https://huggingface.co/o/base", "o/base\0"])
def test_invalid_base_is_refused(database: Database, tmp_path: Path, base: str):
    with pytest.raises(InvalidRepoId, match="base model"):
        submit_repo(database, RepoRef("a/b"), base=base)
    with pytest.raises(InvalidRepoId, match="base model"):
        submit_folder(database, tmp_path, base=base)


def test_base_without_an_owner_is_valid(database: Database):
    assert submit_repo(database, RepoRef("a/b"), base="gpt2").requested_base == "gpt2"


def test_owner_reserved_for_folders_is_refused(database: Database):
    with pytest.raises(InvalidRepoId, match="deltadex add FOLDER"):
        submit_repo(database, RepoRef("local/x"))

    with database.transaction() as session:
        assert models.list_page(session) == []


def test_folder_is_named_after_itself(database: Database, tmp_path: Path):
    job = submit_folder(database, tmp_path)

    assert job.model.repo_id == f"local/{tmp_path.name}"
    assert (job.model.source, job.model.folder) == (Source.FOLDER, str(tmp_path))


def test_folder_takes_the_given_name(database: Database, tmp_path: Path):
    assert submit_folder(database, tmp_path, "mine").model.repo_id == "local/mine"


def test_base_of_a_folder_is_stored_with_its_job(database: Database, tmp_path: Path):
    assert submit_folder(database, tmp_path, base="o/base").requested_base == "o/base"


def test_same_folder_by_another_path_is_the_same_model(database: Database, tmp_path: Path):
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "x")

    first = submit_folder(database, tmp_path / "x", "mine")
    second = submit_folder(database, tmp_path / "link" / ".." / "x", "mine")

    assert first.id == second.id


def test_name_of_another_folder_is_refused(database: Database, tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name / "adapter").mkdir(parents=True)
    submit_folder(database, tmp_path / "one" / "adapter")

    with pytest.raises(NameTaken, match="--name"):
        submit_folder(database, tmp_path / "two" / "adapter")


def test_path_that_is_not_a_folder_is_refused(database: Database, tmp_path: Path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(FolderUnreadable):
            submit_folder(database, path)


def test_folder_with_an_invalid_model_name_is_refused(database: Database, tmp_path: Path):
    (tmp_path / "my model").mkdir()
    with pytest.raises(InvalidRepoId, match="--name"):
        submit_folder(database, tmp_path / "my model")
