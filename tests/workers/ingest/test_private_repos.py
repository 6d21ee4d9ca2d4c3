"""What becomes of a submission with a token: a real Hub client, Postgres, and a Hub that shows repos to some alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import func, update

from catalog.auth import repository as access
from catalog.auth.hub_tokens import TokenBox
from catalog.auth.viewer import EVERYTHING, PUBLIC, Viewer
from catalog.database import Database
from catalog.errors import ModelNotFound, TokenRequired
from catalog.jobs import control as job_control
from catalog.jobs import private_models
from catalog.jobs.quotas import Quota
from catalog.jobs.repository import attempts, claims
from catalog.maintenance.sweep import sweep
from catalog.tables import Job, JobState, ModelState
from catalog.vectors.repository import feed, vectors
from tests.support import pico
from tests.support.hub_server import Answer, ScriptedHub
from tests.support.private_repos import GATED, PRIVATE, Worker, make_worker, publish

MINE, YOURS = Quota.of_key("my key", 100), Quota.of_key("your key", 100)
ME, YOU = Viewer(MINE.submitter), Viewer(YOURS.submitter)


@pytest.fixture
def worker(database: Database, pico_base: Path, tmp_path: Path, scripted_hub: ScriptedHub) -> Worker:
    return make_worker(database, pico_base, tmp_path, scripted_hub)


@pytest.fixture
def repo(scripted_hub: ScriptedHub, tmp_path: Path) -> str:
    """A private repo that `mine` and `yours` may read."""
    publish(scripted_hub, "o/secret", tmp_path / "secret", PRIVATE)
    scripted_hub.guards("o/secret", "mine", "yours")
    return "o/secret"


def test_what_was_read_with_a_token_is_seen_by_its_submitter_alone(worker: Worker, repo: str):
    job = worker.read(repo, MINE, "mine")

    assert job.state == JobState.DONE
    model = worker.seen(repo, ME)
    assert model is not None
    assert (model.private, model.state) == (True, ModelState.INDEXED)
    assert worker.seen(repo, EVERYTHING) is not None
    assert worker.seen(repo) is worker.seen(repo, YOU) is None


def test_the_token_is_gone_once_the_job_is_done(worker: Worker, repo: str):
    job = worker.submit(repo, MINE, "mine")
    assert worker.job(job.id).token is not None
    assert worker.ingest(job).token is None


def test_the_token_is_gone_once_the_job_failed_or_was_cancelled(worker: Worker, repo: str):
    failed = worker.read(repo, MINE, "wrong")
    assert (failed.state, failed.error_code, failed.token) == (JobState.FAILED, "repo_not_found", None)

    cancelled = worker.submit(repo, MINE, "mine")
    job_control.cancel(worker.database, cancelled.id, ME)
    assert worker.job(cancelled.id).token is None


def test_a_job_that_waits_for_its_next_attempt_keeps_its_token(worker: Worker, repo: str, scripted_hub: ScriptedHub):
    job = worker.submit(repo, MINE, "mine")
    scripted_hub.disturb = lambda path: Answer(500)
    assert (worker.ingest(job).state, worker.job(job.id).token is not None) == (JobState.QUEUED, True)
    scripted_hub.disturb = lambda path: None
    assert worker.ingest(job).state == JobState.DONE


def test_another_key_sees_it_once_a_job_of_its_own_has_read_it(worker: Worker, repo: str):
    worker.read(repo, MINE, "mine")
    job = worker.submit(repo, YOURS, "yours")
    assert worker.seen(repo, YOU) is None

    worker.ingest(job)

    seen = worker.seen(repo, YOU)
    assert seen is not None
    assert seen.id == worker.seen(repo, ME).id  # type: ignore[union-attr]


@pytest.mark.parametrize(("quota", "token"), [(None, None), (YOURS, None), (YOURS, "wrong")])
def test_a_stranger_who_submits_the_name_learns_and_disturbs_nothing(
    worker: Worker, repo: str, quota: Quota | None, token: str | None
):
    mine = worker.read(repo, MINE, "mine")
    before = worker.seen(repo, ME)

    strangers = worker.submit(repo, quota, token)

    assert strangers.id != mine.id
    assert strangers.state == JobState.QUEUED
    failed = worker.ingest(strangers)
    assert (failed.state, failed.error_code) == (JobState.FAILED, "repo_not_found")
    after = worker.seen(repo, ME)
    assert before is not None
    assert after is not None
    assert (after.id, after.state, after.seq) == (before.id, before.state, before.seq)


def test_an_active_job_is_given_to_its_own_submitter_alone_with_the_token_that_came_last(worker: Worker, repo: str):
    first = worker.submit(repo, MINE, "wrong")
    others = [worker.submit(repo, YOURS, "yours"), worker.submit(repo, YOURS), worker.submit(repo)]
    again = worker.submit(repo, MINE, "mine")

    assert again.id == first.id
    assert first.id not in [each.id for each in others]
    assert worker.ingest(again).state == JobState.DONE


def test_a_public_repo_is_an_ordinary_model(worker: Worker, scripted_hub: ScriptedHub, tmp_path: Path):
    publish(scripted_hub, "o/open", tmp_path / "open", {})

    job = worker.read("o/open", MINE, "mine")

    assert job.state == JobState.DONE
    seen = worker.seen("o/open")
    assert seen is not None
    assert (seen.private, seen.state) == (False, ModelState.INDEXED)
    assert worker.rows("o/open") == [False]
    assert not PUBLIC.sees(job.viewer)  # the job stays its submitter's


def test_a_repo_that_turns_private_between_two_attempts_is_private(
    worker: Worker, scripted_hub: ScriptedHub, tmp_path: Path
):
    publish(scripted_hub, "o/open", tmp_path / "open", {})
    job = worker.submit("o/open", MINE, "mine")
    with worker.database.transaction() as session:
        (claimed,) = claims.claim(session, job.id, worker.worker_id, 1)
    worker.fetcher.fetch(claimed, worker.worker_id).hold.release()  # type: ignore[union-attr]
    assert not worker.job(job.id).model.private
    with worker.database.transaction() as session:
        attempts.release(session, [worker.worker_id])

    publish(scripted_hub, "o/open", tmp_path / "again", PRIVATE)
    assert worker.ingest(job).state == JobState.DONE

    assert worker.seen("o/open", ME).private  # type: ignore[union-attr]
    assert worker.seen("o/open").state == ModelState.PENDING  # type: ignore[union-attr]


@pytest.mark.parametrize("told", [{"private": None}, {"gated": None}, {"gated": "manual"}, {"private": True}])
def test_a_repo_that_the_hub_does_not_call_public_is_private(
    worker: Worker, scripted_hub: ScriptedHub, tmp_path: Path, told: dict[str, object]
):
    publish(scripted_hub, "o/some", tmp_path / "some", told)
    worker.read("o/some", MINE, "mine")
    assert worker.seen("o/some", ME) is not None
    assert worker.seen("o/some") is None


def test_files_of_a_gated_repo_that_lie_here_are_not_for_those_who_may_only_list_it(
    worker: Worker, scripted_hub: ScriptedHub, tmp_path: Path
):
    publish(scripted_hub, "o/gated", tmp_path / "gated", GATED)
    scripted_hub.guards("o/gated", "mine", gated=True)
    worker.read("o/gated", MINE, "mine")

    with_token, without = worker.read("o/gated", YOURS, "yours"), worker.read("o/gated")

    assert {(job.state, job.error_code) for job in (with_token, without)} == {(JobState.FAILED, "repo_gated")}
    assert worker.seen("o/gated", YOU).state == ModelState.FAILED  # type: ignore[union-attr]  # the public one


def test_a_model_of_a_gated_base_is_private_where_the_users_token_was_needed(
    database: Database, scripted_hub: ScriptedHub, tmp_path: Path, pico_base: Path
):
    worker = make_worker(database, tmp_path / "no-bases", tmp_path, scripted_hub)
    base = {path.name: path.read_bytes() for path in (pico_base / pico.BASE_ID).iterdir() if path.is_file()}
    scripted_hub.publishes("o/base", base, told=GATED)
    scripted_hub.guards("o/base", "mine", gated=True)
    publish(scripted_hub, "o/tune", tmp_path / "tune", {}, base="o/base")

    mine = worker.read("o/tune", MINE, "mine")
    yours, nobodys = worker.read("o/tune", YOURS, "yours"), worker.read("o/tune")

    assert mine.state == JobState.DONE
    assert worker.seen("o/tune", ME).private  # type: ignore[union-attr]
    assert {job.error_code for job in (yours, nobodys)} == {"base_unresolved"}


def test_what_the_service_itself_may_read_later_is_public_from_then_on(
    worker: Worker, repo: str, scripted_hub: ScriptedHub
):
    worker.read(repo, MINE, "mine")
    scripted_hub.guards(repo, "mine", "")  # also without a token

    worker.read(repo)

    seen = worker.seen(repo)
    assert seen is not None
    assert worker.seen(repo, ME).id == seen.id  # type: ignore[union-attr]
    with worker.database.transaction() as session:
        hidden = access.private_model(session, repo)
        assert hidden is not None
        assert (hidden.state, access.granted(session, hidden.id)) == (ModelState.REMOVED, [])


def test_a_commit_that_is_public_already_stays_so(worker: Worker, scripted_hub: ScriptedHub, tmp_path: Path):
    publish(scripted_hub, "o/turned", tmp_path / "turned", {})
    worker.read("o/turned")
    publish(scripted_hub, "o/turned", tmp_path / "again", PRIVATE)
    scripted_hub.guards("o/turned", "mine")

    assert worker.read("o/turned", MINE, "mine").state == JobState.DONE

    assert worker.rows("o/turned") == [False]


def test_a_newer_commit_that_only_a_token_reads_stands_for_its_submitter_in_place_of_the_public_one(
    worker: Worker, scripted_hub: ScriptedHub, tmp_path: Path
):
    publish(scripted_hub, "o/turned", tmp_path / "turned", {})
    worker.read("o/turned")
    newer = pico.make_adapter(tmp_path / "newer", seed=9)
    files = {path.name: path.read_bytes() for path in newer.iterdir()}
    scripted_hub.publishes("o/turned", files, told=PRIVATE, sha="6" * 40)
    scripted_hub.guards("o/turned", "mine")

    worker.read("o/turned", MINE, "mine")

    seen = {viewer: worker.seen("o/turned", viewer).revision.sha[0] for viewer in (PUBLIC, ME, YOU)}  # type: ignore
    assert seen == {PUBLIC: "5", ME: "6", YOU: "5"}


def test_an_admin_lets_others_see_it_and_takes_it_back(worker: Worker, repo: str):
    worker.read(repo, MINE, "mine")
    assert [each.by_admin for each in private_models.allow(worker.database, repo, YOURS.submitter)] == [False, True]
    assert worker.seen(repo, YOU) is not None

    private_models.forbid(worker.database, repo, YOURS.submitter)

    assert worker.seen(repo, YOU) is None
    assert worker.seen(repo, ME) is not None
    with pytest.raises(ModelNotFound):
        private_models.allow(worker.database, "o/other", YOURS.submitter)


def test_a_retry_by_anybody_asks_for_the_token_again(worker: Worker, repo: str):
    job = worker.read(repo, MINE, "wrong")
    with pytest.raises(TokenRequired):
        job_control.retry(worker.database, job.id, MINE, ME)
    with pytest.raises(TokenRequired):
        job_control.retry(worker.database, job.id, by_admin=True)
    assert job_control.retry_failed(worker.database, "repo_not_found") == 0


def test_a_token_that_waited_too_long_is_forgotten_and_its_job_says_so(worker: Worker, repo: str):
    job = worker.submit(repo, MINE, "mine")
    limits = {"silence": 60, "ring_again_after": 60, "deadly": 2, "events_kept": 60}
    sweep(worker.database, **limits, token_max_age=3600)
    assert worker.job(job.id).state == JobState.QUEUED

    with worker.database.transaction() as session:
        session.execute(update(Job).values(token_at=func.now() - func.make_interval(0, 0, 0, 0, 2)))
    sweep(worker.database, **limits, token_max_age=3600)

    ended = worker.job(job.id)
    assert (ended.state, ended.error_code, ended.token) == (JobState.FAILED, "token_expired", None)


def test_a_worker_with_another_key_leaves_the_job_to_others(worker: Worker, repo: str):
    job = worker.submit(repo, MINE, "mine")
    stranger = TokenBox(SecretStr(Fernet.generate_key().decode())).seal(SecretStr("mine"), MINE.submitter)
    with worker.database.transaction() as session:
        session.execute(update(Job).values(token=stranger))
    waiting = worker.ingest(job)
    assert (waiting.state, waiting.error_code) == (JobState.QUEUED, "token_unreadable")


def test_a_token_goes_with_requests_of_its_own_job_alone(
    worker: Worker, repo: str, scripted_hub: ScriptedHub, tmp_path: Path
):
    publish(scripted_hub, "o/open", tmp_path / "open", {}, seed=3)
    scripted_hub.answer("/api/models/o/cookie", Answer(404, {"Set-Cookie": "session=mine; Path=/"}))
    worker.read("o/cookie", MINE, "mine")
    pair = [worker.submit(repo, MINE, "mine"), worker.submit("o/open")]  # claimed together
    worker.ingest(pair[0])
    assert worker.job(pair[1].id).state == JobState.DONE

    by_repo = {"o/secret": set(), "o/open": set()}
    for _, path, headers in scripted_hub.requests:
        told = {name.lower(): value for name, value in headers.items()}
        assert "cookie" not in told
        for name, seen in by_repo.items():
            if name in path:
                seen.add(told.get("authorization"))
    assert by_repo == {"o/secret": {"Bearer mine"}, "o/open": {None}}


def test_a_token_does_not_follow_a_redirect_to_another_host(
    worker: Worker, repo: str, scripted_hub: ScriptedHub, tmp_path: Path
):
    elsewhere = ScriptedHub()
    try:
        weights = (tmp_path / "secret" / "adapter_model.safetensors").read_bytes()
        elsewhere.answer("/stored", Answer(body=weights))
        for path in ("adapter_model.safetensors",):
            away = Answer(302, {"Location": f"{elsewhere.url}/stored"})
            scripted_hub.answer(f"/{repo}/resolve/{scripted_hub.sha}/{path}", away)
        assert worker.read(repo, MINE, "mine").state == JobState.DONE
        assert elsewhere.requests
        assert all("authorization" not in map(str.lower, headers) for _, _, headers in elsewhere.requests)
    finally:
        elsewhere.stop()


def test_a_private_model_is_in_no_cluster_and_its_vector_in_the_feed(worker: Worker, repo: str):
    worker.read(repo, MINE, "mine")
    with worker.database.transaction() as session:
        stored = vectors.newest(session, repo, features=("delta_activations",), viewer=ME)
        assert feed.touched(session, stored.space.id, 0) == []
        changes = feed.changes_of(session, {stored.space.id: 0}, 10)
        assert [change.model_id for change in changes] == [stored.model.id]
        assert feed.changes_of(session, {stored.space.id: 0}, 10, public=True) == []
