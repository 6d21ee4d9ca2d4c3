"""Submissions with a Hub token, with the real Hub client, Postgres, and a Hub that restricts access to repos."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import func, update

from catalog.auth.hub_tokens import TokenBox
from catalog.auth.repository import access
from catalog.auth.viewer import ADMIN, PUBLIC, Viewer
from catalog.database import Database
from catalog.errors import HubTokenRequired, ModelNotFound
from catalog.jobs import control as job_control
from catalog.jobs import private_models
from catalog.jobs.quotas import Quota
from catalog.jobs.repository import attempts, claims
from catalog.maintenance.sweep import sweep
from catalog.tables import Job, JobState, ModelState
from catalog.vectors.repository import feed, vectors
from tests.support import pico
from tests.support.hub_server import Answer, ScriptedHub
from tests.support.keys import add_key
from tests.support.private_repos import GATED, PRIVATE, Worker, make_worker, publish

OWNER_QUOTA, OTHER_QUOTA = Quota("my key", 100), Quota("your key", 100)
OWNER, OTHER = Viewer(OWNER_QUOTA.submitter), Viewer(OTHER_QUOTA.submitter)


@pytest.fixture
def worker(database: Database, pico_base: Path, tmp_path: Path, scripted_hub: ScriptedHub) -> Worker:
    return make_worker(database, pico_base, tmp_path, scripted_hub)


@pytest.fixture
def repo(scripted_hub: ScriptedHub, tmp_path: Path) -> str:
    """A private repo that the tokens `mine` and `yours` may read."""
    publish(scripted_hub, "o/secret", tmp_path / "secret", PRIVATE)
    scripted_hub.restrict("o/secret", "mine", "yours")
    return "o/secret"


def test_repo_read_with_a_token_is_visible_only_to_its_submitter(worker: Worker, repo: str):
    job = worker.submit_and_ingest(repo, OWNER_QUOTA, "mine")

    assert job.state == JobState.DONE
    model = worker.find_model(repo, OWNER)
    assert model is not None
    assert (model.private, model.state) == (True, ModelState.INDEXED)
    assert worker.find_model(repo, ADMIN) is not None
    assert worker.find_model(repo) is worker.find_model(repo, OTHER) is None


def test_token_is_deleted_once_the_job_is_done(worker: Worker, repo: str):
    job = worker.submit(repo, OWNER_QUOTA, "mine")
    assert worker.get_job(job.id).token is not None
    assert worker.ingest(job).token is None


def test_token_is_deleted_once_the_job_failed_or_was_cancelled(worker: Worker, repo: str):
    failed = worker.submit_and_ingest(repo, OWNER_QUOTA, "wrong")
    assert (failed.state, failed.error_code, failed.token) == (JobState.FAILED, "repo_not_found", None)

    cancelled = worker.submit(repo, OWNER_QUOTA, "mine")
    job_control.cancel(worker.database, cancelled.id, OWNER)
    assert worker.get_job(cancelled.id).token is None


def test_job_waiting_for_a_retry_keeps_its_token(worker: Worker, repo: str, scripted_hub: ScriptedHub):
    job = worker.submit(repo, OWNER_QUOTA, "mine")
    scripted_hub.intercept = lambda path: Answer(500)
    assert (worker.ingest(job).state, worker.get_job(job.id).token is not None) == (JobState.QUEUED, True)
    scripted_hub.intercept = lambda path: None
    assert worker.ingest(job).state == JobState.DONE


def test_other_key_gets_access_once_its_own_job_has_read_the_repo(worker: Worker, repo: str):
    worker.submit_and_ingest(repo, OWNER_QUOTA, "mine")
    job = worker.submit(repo, OTHER_QUOTA, "yours")
    assert worker.find_model(repo, OTHER) is None

    worker.ingest(job)

    model = worker.find_model(repo, OTHER)
    assert model is not None
    assert model.id == worker.find_model(repo, OWNER).id  # type: ignore[union-attr]


@pytest.mark.parametrize(("quota", "token"), [(None, None), (OTHER_QUOTA, None), (OTHER_QUOTA, "wrong")])
def test_submission_by_others_neither_reveals_nor_changes_a_private_model(
    worker: Worker, repo: str, quota: Quota | None, token: str | None
):
    own = worker.submit_and_ingest(repo, OWNER_QUOTA, "mine")
    before = worker.find_model(repo, OWNER)

    other = worker.submit(repo, quota, token)

    assert other.id != own.id
    assert other.state == JobState.QUEUED
    failed = worker.ingest(other)
    assert (failed.state, failed.error_code) == (JobState.FAILED, "repo_not_found")
    after = worker.find_model(repo, OWNER)
    assert before is not None
    assert after is not None
    assert (after.id, after.state, after.seq) == (before.id, before.state, before.seq)


def test_active_private_job_is_returned_only_to_its_submitter_with_the_newest_token(worker: Worker, repo: str):
    first = worker.submit(repo, OWNER_QUOTA, "wrong")
    others = [worker.submit(repo, OTHER_QUOTA, "yours"), worker.submit(repo, OTHER_QUOTA), worker.submit(repo)]
    again = worker.submit(repo, OWNER_QUOTA, "mine")

    assert again.id == first.id
    assert first.id not in [other.id for other in others]
    assert worker.ingest(again).state == JobState.DONE


def test_public_repo_read_with_a_token_is_a_public_model(worker: Worker, scripted_hub: ScriptedHub, tmp_path: Path):
    publish(scripted_hub, "o/open", tmp_path / "open", {})

    job = worker.submit_and_ingest("o/open", OWNER_QUOTA, "mine")

    assert job.state == JobState.DONE
    model = worker.find_model("o/open")
    assert model is not None
    assert (model.private, model.state) == (False, ModelState.INDEXED)
    assert worker.private_flags("o/open") == [False]
    assert not PUBLIC.can_see(job.viewer)  # the job stays private


def test_repo_that_turns_private_between_attempts_is_private(worker: Worker, scripted_hub: ScriptedHub, tmp_path: Path):
    publish(scripted_hub, "o/open", tmp_path / "open", {})
    job = worker.submit("o/open", OWNER_QUOTA, "mine")
    with worker.database.transaction() as session:
        (claimed,) = claims.claim(session, job.id, worker.worker_id, 1)
    worker.fetcher.fetch(claimed, worker.worker_id).locks.release()  # type: ignore[union-attr]
    assert not worker.get_job(job.id).model.private
    with worker.database.transaction() as session:
        attempts.release(session, [worker.worker_id])

    publish(scripted_hub, "o/open", tmp_path / "again", PRIVATE)
    assert worker.ingest(job).state == JobState.DONE

    assert worker.find_model("o/open", OWNER).private  # type: ignore[union-attr]
    assert worker.find_model("o/open").state == ModelState.PENDING  # type: ignore[union-attr]


@pytest.mark.parametrize("metadata", [{"private": None}, {"gated": None}, {"gated": "manual"}, {"private": True}])
def test_repo_that_the_hub_does_not_report_as_public_is_private(
    worker: Worker, scripted_hub: ScriptedHub, tmp_path: Path, metadata: dict[str, object]
):
    publish(scripted_hub, "o/some", tmp_path / "some", metadata)
    worker.submit_and_ingest("o/some", OWNER_QUOTA, "mine")
    assert worker.find_model("o/some", OWNER) is not None
    assert worker.find_model("o/some") is None


def test_cached_files_of_a_gated_repo_need_access_to_the_files(
    worker: Worker, scripted_hub: ScriptedHub, tmp_path: Path
):
    publish(scripted_hub, "o/gated", tmp_path / "gated", GATED)
    scripted_hub.restrict("o/gated", "mine", gated=True)
    worker.submit_and_ingest("o/gated", OWNER_QUOTA, "mine")

    with_token, without = worker.submit_and_ingest("o/gated", OTHER_QUOTA, "yours"), worker.submit_and_ingest("o/gated")

    assert {(job.state, job.error_code) for job in (with_token, without)} == {(JobState.FAILED, "gated_repo")}
    assert worker.find_model("o/gated", OTHER).state == ModelState.FAILED  # type: ignore[union-attr]  # the public one


def test_model_of_a_gated_base_read_with_a_users_token_is_private(
    database: Database, scripted_hub: ScriptedHub, tmp_path: Path, pico_base: Path
):
    worker = make_worker(database, tmp_path / "no-bases", tmp_path, scripted_hub)
    base = {path.name: path.read_bytes() for path in (pico_base / pico.BASE_ID).iterdir() if path.is_file()}
    scripted_hub.publish("o/base", base, info=GATED)
    scripted_hub.restrict("o/base", "mine", gated=True)
    publish(scripted_hub, "o/tune", tmp_path / "tune", {}, base="o/base")

    own = worker.submit_and_ingest("o/tune", OWNER_QUOTA, "mine")
    other, anonymous = worker.submit_and_ingest("o/tune", OTHER_QUOTA, "yours"), worker.submit_and_ingest("o/tune")

    assert own.state == JobState.DONE
    assert worker.find_model("o/tune", OWNER).private  # type: ignore[union-attr]
    assert {job.error_code for job in (other, anonymous)} == {"base_unresolved"}


def test_repo_that_becomes_readable_without_a_users_token_becomes_public(
    worker: Worker, repo: str, scripted_hub: ScriptedHub
):
    worker.submit_and_ingest(repo, OWNER_QUOTA, "mine")
    scripted_hub.restrict(repo, "mine", "")  # now readable without a token, too

    worker.submit_and_ingest(repo)

    model = worker.find_model(repo)
    assert model is not None
    assert worker.find_model(repo, OWNER).id == model.id  # type: ignore[union-attr]
    with worker.database.transaction() as session:
        private = access.find_private_model(session, repo)
        assert private is not None
        assert (private.state, access.list_access(session, private.id)) == (ModelState.REMOVED, [])


def test_public_commit_stays_public(worker: Worker, scripted_hub: ScriptedHub, tmp_path: Path):
    publish(scripted_hub, "o/turned", tmp_path / "turned", {})
    worker.submit_and_ingest("o/turned")
    publish(scripted_hub, "o/turned", tmp_path / "again", PRIVATE)
    scripted_hub.restrict("o/turned", "mine")

    assert worker.submit_and_ingest("o/turned", OWNER_QUOTA, "mine").state == JobState.DONE

    assert worker.private_flags("o/turned") == [False]


def test_newer_private_commit_replaces_the_public_one_only_for_its_submitter(
    worker: Worker, scripted_hub: ScriptedHub, tmp_path: Path
):
    publish(scripted_hub, "o/turned", tmp_path / "turned", {})
    worker.submit_and_ingest("o/turned")
    newer = pico.make_adapter(tmp_path / "newer", seed=9)
    files = {path.name: path.read_bytes() for path in newer.iterdir()}
    scripted_hub.publish("o/turned", files, info=PRIVATE, sha="6" * 40)
    scripted_hub.restrict("o/turned", "mine")

    worker.submit_and_ingest("o/turned", OWNER_QUOTA, "mine")

    shas = {viewer: worker.find_model("o/turned", viewer).revision.sha[0] for viewer in (PUBLIC, OWNER, OTHER)}  # type: ignore
    assert shas == {PUBLIC: "5", OWNER: "6", OTHER: "5"}


def test_admin_grants_and_revokes_access(worker: Worker, repo: str):
    other = add_key(worker.database, "the key of another user")
    viewer = Viewer(other.hash)
    worker.submit_and_ingest(repo, OWNER_QUOTA, "mine")
    granted = private_models.grant_access(worker.database, repo, other.prefix)
    assert [entry.by_admin for entry, _ in granted] == [False, True]
    assert worker.find_model(repo, viewer) is not None

    private_models.revoke_access(worker.database, repo, other.prefix)

    assert worker.find_model(repo, viewer) is None
    assert worker.find_model(repo, OWNER) is not None
    with pytest.raises(ModelNotFound):
        private_models.grant_access(worker.database, "o/other", other.prefix)


def test_retry_of_a_private_job_requires_the_token_again(worker: Worker, repo: str):
    job = worker.submit_and_ingest(repo, OWNER_QUOTA, "wrong")
    with pytest.raises(HubTokenRequired):
        job_control.retry(worker.database, job.id, OWNER_QUOTA, OWNER)
    with pytest.raises(HubTokenRequired):
        job_control.retry(worker.database, job.id, by_admin=True)
    assert job_control.retry_failed(worker.database, "repo_not_found") == 0


def test_expired_token_is_deleted_and_its_job_fails(worker: Worker, repo: str):
    job = worker.submit(repo, OWNER_QUOTA, "mine")
    limits = {"requeue_after": 60, "redeliver_after": 60, "max_worker_deaths": 2, "event_retention": 60}
    sweep(worker.database, **limits, token_max_age=3600)
    assert worker.get_job(job.id).state == JobState.QUEUED

    with worker.database.transaction() as session:
        session.execute(update(Job).values(token_at=func.now() - func.make_interval(0, 0, 0, 0, 2)))
    sweep(worker.database, **limits, token_max_age=3600)

    ended = worker.get_job(job.id)
    assert (ended.state, ended.error_code, ended.token) == (JobState.FAILED, "hub_token_expired", None)


def test_worker_with_another_token_key_requeues_the_job(worker: Worker, repo: str):
    job = worker.submit(repo, OWNER_QUOTA, "mine")
    sealed_with_another_key = TokenBox(SecretStr(Fernet.generate_key().decode())).seal(
        SecretStr("mine"), OWNER_QUOTA.submitter
    )
    with worker.database.transaction() as session:
        session.execute(update(Job).values(token=sealed_with_another_key))
    requeued = worker.ingest(job)
    assert (requeued.state, requeued.error_code) == (JobState.QUEUED, "hub_token_unreadable")


def test_token_is_sent_only_with_requests_of_its_own_job(
    worker: Worker, repo: str, scripted_hub: ScriptedHub, tmp_path: Path
):
    publish(scripted_hub, "o/open", tmp_path / "open", {}, seed=3)
    scripted_hub.answer("/api/models/o/cookie", Answer(404, {"Set-Cookie": "session=mine; Path=/"}))
    worker.submit_and_ingest("o/cookie", OWNER_QUOTA, "mine")
    pair = [worker.submit(repo, OWNER_QUOTA, "mine"), worker.submit("o/open")]  # claimed together
    worker.ingest(pair[0])
    assert worker.get_job(pair[1].id).state == JobState.DONE

    by_repo = {"o/secret": set(), "o/open": set()}
    for _, path, headers in scripted_hub.requests:
        lower_case = {name.lower(): value for name, value in headers.items()}
        assert "cookie" not in lower_case
        for name, tokens in by_repo.items():
            if name in path:
                tokens.add(lower_case.get("authorization"))
    assert by_repo == {"o/secret": {"Bearer mine"}, "o/open": {None}}


def test_token_is_not_sent_to_another_host_on_redirect(
    worker: Worker, repo: str, scripted_hub: ScriptedHub, tmp_path: Path
):
    elsewhere = ScriptedHub()
    try:
        weights = (tmp_path / "secret" / "adapter_model.safetensors").read_bytes()
        elsewhere.answer("/stored", Answer(body=weights))
        for path in ("adapter_model.safetensors",):
            away = Answer(302, {"Location": f"{elsewhere.url}/stored"})
            scripted_hub.answer(f"/{repo}/resolve/{scripted_hub.sha}/{path}", away)
        assert worker.submit_and_ingest(repo, OWNER_QUOTA, "mine").state == JobState.DONE
        assert elsewhere.requests
        assert all("authorization" not in map(str.lower, headers) for _, _, headers in elsewhere.requests)
    finally:
        elsewhere.stop()


def test_private_model_is_in_the_feed_but_in_no_cluster(worker: Worker, repo: str):
    worker.submit_and_ingest(repo, OWNER_QUOTA, "mine")
    with worker.database.transaction() as session:
        stored = vectors.get_encoding(session, repo, features=("delta_activations",), viewer=OWNER)
        assert feed.list_changed_models(session, stored.space.id, 0) == []
        changes = feed.list_space_changes(session, {stored.space.id: 0}, 10)
        assert [change.model_id for change in changes] == [stored.model.id]
        assert feed.list_space_changes(session, {stored.space.id: 0}, 10, public=True) == []
