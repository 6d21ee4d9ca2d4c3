from __future__ import annotations

from pathlib import Path

import pytest

from catalog.database import Database
from catalog.jobs.quotas import Quota
from catalog.tables import JobState
from tests.support.hub_server import ScriptedHub
from tests.support.private_repos import GATED, Worker, make_worker, publish
from workers.hub import service_token


@pytest.fixture
def worker(database: Database, pico_base: Path, tmp_path: Path, scripted_hub: ScriptedHub) -> Worker:
    """A worker whose token the hub rejects."""
    scripted_hub.valid_tokens = set()
    return make_worker(database, pico_base, tmp_path, scripted_hub, hub_token="ours")


def test_public_repo_is_indexed_despite_an_invalid_token(worker: Worker, scripted_hub: ScriptedHub, tmp_path: Path):
    publish(scripted_hub, "o/open", tmp_path / "adapter", {})
    assert worker.submit_and_ingest("o/open").state == JobState.DONE


def test_gated_repo_waits_for_a_valid_token_and_no_attempt_counts(
    worker: Worker, scripted_hub: ScriptedHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(service_token, "PROBE_INTERVAL", 0)
    publish(scripted_hub, "o/gated", tmp_path / "adapter", GATED)
    scripted_hub.restrict("o/gated", "ours", gated=True)
    job = worker.submit("o/gated")
    for _ in range(4):  # more than the attempts that may fail
        job = worker.ingest(job)
        assert (job.state, job.error_code, job.attempts) == (JobState.QUEUED, "hub_token_invalid", 0)
        assert job.history == []
    scripted_hub.valid_tokens = {"ours"}
    assert worker.ingest(job).state == JobState.DONE


def test_job_with_an_invalid_token_of_its_own_fails(worker: Worker, scripted_hub: ScriptedHub, tmp_path: Path):
    publish(scripted_hub, "o/open", tmp_path / "adapter", {})
    job = worker.submit_and_ingest("o/open", Quota("me", 10), token="hf_theirs")
    assert (job.state, job.error_code) == (JobState.FAILED, "hub_token_rejected")
