from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from app.deployment.embedded import EmbeddedServers
from catalog.database import Database
from catalog.errors import FolderUnreadable, InvalidRepoId, NameTaken
from catalog.jobs.repository import attempts
from catalog.jobs.submissions import is_over, submit_folder, submit_repo
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import models
from catalog.queue import ENCODE_QUEUE
from catalog.tables import Job, JobState, ModelState, Source
from tests.support import catalog as entries


@pytest.fixture
def broker(database: Database, servers: EmbeddedServers) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(servers.redis_url) as broker:
        yield broker


def done(database: Database, job: Job, commit: str) -> None:
    """End the job well, with the vector of that commit stored."""
    worker = entries.put_worker(database)
    entries.claim(database, job.id, worker)
    entries.put(database, job.model.repo_id, [1, 2], commit=commit)
    with database.transaction() as session:
        assert attempts.finish(session, job.id, worker, entries.sha(commit))


def test_a_repo_becomes_a_queued_job_that_is_rung_once(database: Database, broker: redis.Redis):
    job = submit_repo(database, RepoRef("a/b", "main"))

    assert (job.model.repo_id, job.requested_revision, job.state) == ("a/b", "main", JobState.QUEUED)
    assert job.model.state == ModelState.PENDING
    assert broker.llen(ENCODE_QUEUE) == 1


def test_the_same_repo_twice_is_the_same_job_and_no_second_bell(database: Database, broker: redis.Redis):
    first = submit_repo(database, RepoRef("a/b"))
    second = submit_repo(database, RepoRef("a/b"))

    assert first.id == second.id
    assert broker.llen(ENCODE_QUEUE) == 1


def test_another_revision_is_another_job(database: Database):
    found = [submit_repo(database, RepoRef("a/b", revision)).id for revision in (None, "main", "v1")]
    assert len(set(found)) == 3


def test_many_requests_at_once_make_one_job(database: Database, broker: redis.Redis):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: submit_repo(database, RepoRef("a/b")).id, range(24)))

    assert len(set(found)) == 1
    assert broker.llen(ENCODE_QUEUE) == 1


def test_a_job_that_is_over_makes_room_for_a_new_one(database: Database):
    first = submit_repo(database, RepoRef("a/b"))
    done(database, first, "one")

    assert submit_repo(database, RepoRef("a/b")).id != first.id


def test_a_commit_that_is_indexed_gives_the_job_that_did_it(database: Database, broker: redis.Redis):
    first = submit_repo(database, RepoRef("a/b"))
    done(database, first, "one")
    broker.flushdb()

    again = submit_repo(database, RepoRef("a/b", entries.sha("one")))

    assert (again.id, is_over(again)) == (first.id, True)
    assert broker.llen(ENCODE_QUEUE) == 0


def test_a_commit_that_is_not_indexed_is_queued(database: Database):
    done(database, submit_repo(database, RepoRef("a/b")), "one")

    assert submit_repo(database, RepoRef("a/b", entries.sha("two"))).state == JobState.QUEUED


def test_a_commit_that_was_replaced_is_queued_to_come_back(database: Database):
    done(database, submit_repo(database, RepoRef("a/b")), "one")
    done(database, submit_repo(database, RepoRef("a/b")), "two")

    assert submit_repo(database, RepoRef("a/b", entries.sha("one"))).state == JobState.QUEUED


def test_a_commit_that_was_removed_is_queued_again(database: Database):
    job = submit_repo(database, RepoRef("a/b"))
    done(database, job, "one")
    entries.remove(database, job.model_id)

    assert submit_repo(database, RepoRef("a/b", entries.sha("one"))).state == JobState.QUEUED


def test_the_owner_of_folders_is_refused(database: Database):
    with pytest.raises(InvalidRepoId, match="deltadex add FOLDER"):
        submit_repo(database, RepoRef("local/x"))

    with database.transaction() as session:
        assert models.page(session) == []


def test_a_folder_is_known_under_its_own_name(database: Database, tmp_path: Path):
    job = submit_folder(database, tmp_path)

    assert job.model.repo_id == f"local/{tmp_path.name}"
    assert (job.model.source, job.model.folder) == (Source.FOLDER, str(tmp_path))


def test_a_folder_takes_the_name_that_is_given(database: Database, tmp_path: Path):
    assert submit_folder(database, tmp_path, "mine").model.repo_id == "local/mine"


def test_the_same_folder_by_another_path_is_the_same_model(database: Database, tmp_path: Path):
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "x")

    first = submit_folder(database, tmp_path / "x", "mine")
    second = submit_folder(database, tmp_path / "link" / ".." / "x", "mine")

    assert first.id == second.id


def test_a_name_belongs_to_the_first_folder(database: Database, tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name / "adapter").mkdir(parents=True)
    submit_folder(database, tmp_path / "one" / "adapter")

    with pytest.raises(NameTaken, match="--name"):
        submit_folder(database, tmp_path / "two" / "adapter")


def test_what_is_no_folder_is_refused(database: Database, tmp_path: Path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(FolderUnreadable):
            submit_folder(database, path)


def test_a_folder_whose_name_cannot_be_a_models_name_is_refused(database: Database, tmp_path: Path):
    (tmp_path / "my model").mkdir()
    with pytest.raises(InvalidRepoId, match="--name"):
        submit_folder(database, tmp_path / "my model")
