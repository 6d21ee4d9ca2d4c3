"""Models that are removed or blocked while a worker measures them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from catalog.database import Database
from catalog.jobs.submissions import submit_repo
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import revisions
from catalog.models.repository.models import find_public_row
from catalog.removals import blocks as block_service
from catalog.removals import service as removal_service
from catalog.tables import BlockKind, Job, JobState, Model, ModelState
from catalog.vectors.repository import feed
from tests.support.hub_server import Answer, ScriptedHub
from tests.support.private_repos import Worker, make_worker, publish
from workers.encoding.encoder import Encoder

REPO = "maker/law"


@pytest.fixture
def worker(database: Database, pico_base: Path, tmp_path: Path, scripted_hub: ScriptedHub) -> Worker:
    return make_worker(database, pico_base, tmp_path, scripted_hub)


@pytest.fixture
def repo(scripted_hub: ScriptedHub, tmp_path: Path) -> str:
    """A repo whose card names the license `other`."""
    publish(scripted_hub, REPO, tmp_path / "law", {"cardData": {"license": "other"}})
    return REPO


def row(database: Database) -> Model:
    with database.transaction() as session:
        model = find_public_row(session, REPO)
    assert model is not None
    return model


def last_seq(database: Database) -> int:
    with database.transaction() as session:
        return feed.last_seq(session)


def while_encoding(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Act once before the forward passes."""
    encode = Encoder.encode

    def encode_after(encoder: Encoder, finetunes: Sequence[object]) -> list:
        act()
        return encode(encoder, finetunes)

    monkeypatch.setattr(Encoder, "encode", encode_after)


def outcome(job: Job) -> tuple[str, str | None]:
    return job.state, job.error_code


def test_job_of_a_model_that_is_removed_meanwhile_stores_nothing(
    worker: Worker, repo: str, database: Database, monkeypatch: pytest.MonkeyPatch
):
    job = worker.submit(repo)
    while_encoding(monkeypatch, lambda: removal_service.remove(database, repo))

    assert outcome(worker.ingest(job)) == (JobState.CANCELLED, None)

    assert (row(database).state, row(database).revision, last_seq(database)) == (ModelState.REMOVED, None, 0)


def test_model_is_indexed_again_after_it_was_removed_and_submitted(worker: Worker, repo: str, database: Database):
    assert worker.submit_and_ingest(repo).state == JobState.DONE
    removal_service.remove(database, repo)
    assert worker.find_model(repo) is None

    assert worker.submit_and_ingest(repo).state == JobState.DONE

    model = worker.find_model(repo)
    assert model is not None
    assert (model.state, model.license, model.removed_at) == (ModelState.INDEXED, "other", None)


def test_repo_with_a_blocked_license_is_refused_before_its_weights_are_downloaded(
    worker: Worker, repo: str, database: Database, scripted_hub: ScriptedHub
):
    block_service.add(database, BlockKind.LICENSE, "other")

    job = worker.submit_and_ingest(repo)

    assert outcome(job) == (JobState.FAILED, "model_blocked")
    assert "the license other is blocked" in (job.error_message or "")
    assert scripted_hub.download_requests(".safetensors") == []
    assert (row(database).state, row(database).license, last_seq(database)) == (ModelState.FAILED, None, 0)


@pytest.mark.parametrize(("kind", "value"), [(BlockKind.LICENSE, "other"), (BlockKind.OWNER, "maker")])
def test_model_that_is_blocked_while_it_is_measured_is_not_stored(
    worker: Worker, repo: str, database: Database, monkeypatch: pytest.MonkeyPatch, kind: BlockKind, value: str
):
    job = worker.submit(repo)
    while_encoding(monkeypatch, lambda: block_service.add(database, kind, value))

    job = worker.ingest(job)

    # the name is known before, so that job is cancelled; the license only to the worker
    expected = (JobState.FAILED, "model_blocked") if kind is BlockKind.LICENSE else (JobState.CANCELLED, None)
    assert outcome(job) == expected
    assert (row(database).revision, last_seq(database)) == (None, 0)


def test_indexed_model_is_removed_when_a_job_finds_a_blocked_license(
    worker: Worker, repo: str, database: Database, scripted_hub: ScriptedHub, tmp_path: Path
):
    block_service.add(database, BlockKind.LICENSE, "cc-by-nc-4.0")
    assert worker.submit_and_ingest(repo).state == JobState.DONE
    info = {"cardData": {"license": "cc-by-nc-4.0"}}
    publish(scripted_hub, repo, tmp_path / "newer", info, seed=1)

    assert outcome(worker.submit_and_ingest(repo)) == (JobState.FAILED, "model_blocked")

    assert worker.find_model(repo) is None
    assert (row(database).state, row(database).revision) == (ModelState.REMOVED, None)


def test_blocked_license_of_another_revision_removes_nothing(
    worker: Worker, repo: str, database: Database, scripted_hub: ScriptedHub
):
    assert worker.submit_and_ingest(repo).state == JobState.DONE
    block_service.add(database, BlockKind.LICENSE, "cc-by-nc-4.0")
    old = {"id": repo, "sha": "6" * 40, "private": False, "gated": False, "cardData": {"license": "cc-by-nc-4.0"}}
    scripted_hub.answer(f"/api/models/{repo}/revision/old", Answer(body=json.dumps(old | {"siblings": []}).encode()))

    job = worker.ingest(submit_repo(database, RepoRef(repo, "old")))

    assert outcome(job) == (JobState.FAILED, "model_blocked")
    assert (row(database).state, row(database).license) == (ModelState.INDEXED, "other")


def test_history_is_erased_when_a_job_finds_a_blocked_license(
    worker: Worker, repo: str, database: Database, scripted_hub: ScriptedHub, tmp_path: Path
):
    scripted_hub.answer(
        f"/api/models/{repo}/revision/main", Answer(body=json.dumps({"id": repo, "sha": "7" * 40}).encode())
    )
    assert worker.ingest(submit_repo(database, RepoRef(repo, "old"))).state == JobState.DONE
    assert row(database).revision is None
    block_service.add(database, BlockKind.LICENSE, "cc-by-nc-4.0")
    main = {"id": repo, "sha": "7" * 40, "private": False, "gated": False, "cardData": {"license": "cc-by-nc-4.0"}}
    scripted_hub.answer(f"/api/models/{repo}/revision/main", Answer(body=json.dumps(main).encode()))

    assert outcome(worker.submit_and_ingest(repo)) == (JobState.FAILED, "model_blocked")

    with database.transaction() as session:
        assert revisions.list_page(session, row(database).id, before=None, limit=1) == []
